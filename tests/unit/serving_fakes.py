"""What stands in the place of models in tests of the server, so that no process has to be started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocketDisconnect, WebSocketState

from training.serving.app import create_app
from training.serving.options import Abilities
from training.serving.settings import Settings

LIVE = {"longest": 20.0}
"""How a model that takes live speech cuts."""


def abilities(**changed: Any) -> Abilities:
    usual = Abilities(
        tasks=("transcribe",),
        languages=("vi", "en"),
        language_names={"vi": "vietnamese", "en": "english"},
        told_language=False,
        detects=(),
        sample_rate=16_000,
        timed=True,
        cutting={},
        looks=False,
        frames=True,
        padding_sensitive=False,
        scored=False,
        domains=(),
        domain=None,
        predicts_domain=False,
        created=0,
    )
    return Abilities(**{**usual.as_dict(), **changed})


def app_of(folder: Path, model: Abilities, **settings: Any) -> FastAPI:
    """A server with one model, ``m``, which nothing computes. ``state.server``: its `State`."""
    (folder / "config.json").write_text("{}", encoding="utf8")
    made = create_app(Settings(models={"m": folder}, **settings))
    made.state.server.dispatcher.abilities = {"m": model}
    return made


class FakeSocket:
    """In the place of a WebSocket: what its client sends, and what it was sent. stays: events after which it leaves."""

    def __init__(self, *messages: Mapping[str, Any] | bytes, stays: int = 10**9) -> None:
        self.stays, self.application_state = stays, WebSocketState.CONNECTED
        self.messages = list(messages)
        self.events: list[dict[str, Any]] = []
        self.closed: int | None = None

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        if not self.messages:
            return {"type": "websocket.disconnect"}
        message = self.messages.pop(0)
        content = {"bytes": message} if isinstance(message, bytes) else {"text": json.dumps(message)}
        return {"type": "websocket.receive", **content}

    async def send_text(self, text: str) -> None:
        """As Starlette's: the first one that nobody gets is told apart, a second one is a mistake of the program."""
        if self.application_state is WebSocketState.DISCONNECTED:
            raise RuntimeError("sent after the end")
        if len(self.events) == self.stays:
            self.application_state = WebSocketState.DISCONNECTED
            raise WebSocketDisconnect(1006)
        self.events.append(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        self.closed = code
