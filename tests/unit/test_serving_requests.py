"""Requests to an application in this process, whose models and decoders are replaced."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from serving_fakes import FakeSocket, abilities, app_of

from training.serving import collect
from training.serving.decoders import LARGE_BYTES, Decoders, Sound
from training.serving.errors import ApiError
from training.serving.fields import understand
from training.serving.realtime import Session
from training.serving.uploads import Upload

SECRET = "Zauberwort"


def form(file: bytes | None = b"sound", **fields: str) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if file is not None:
        parts.append(
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + file + b"\r\n"
        )
    return b"".join(parts) + b"--x--\r\n"


async def ask(application: FastAPI, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    whole = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if whole:
            return whole.pop()
        await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"here"), (b"content-type", b"multipart/form-data; boundary=x")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await application(scope, receive, send)
    content = b"".join(one.get("body", b"") for one in sent[1:])
    return sent[0]["status"], json.loads(content) if content else None


def collecting(folder: Path, **settings: Any) -> FastAPI:
    """A server that keeps corrections, and takes every upload for a second of sound."""
    made = app_of(folder, abilities(), collect=folder, **settings)

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(seconds=1.0)

    made.state.server.dispatcher.decoders.opened = opened
    return made


def test_a_fault_is_told_and_logged_without_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, f"No space left on device, {SECRET}")

    monkeypatch.setattr(collect, "_write", full)
    with caplog.at_level(logging.INFO):
        asked = ask(collecting(tmp_path), "/v1/corrections", form(text=SECRET, consent="true"))
        status, found = asyncio.run(asked)
    assert status == 500 and found["error"]["code"] == "internal"
    assert "OSError" in caplog.text and "POST /v1/corrections 500" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"text": "a"}, 400, "no_consent"),
        ({"consent": "true"}, 422, "invalid_field"),
        ({"text": "a", "consent": "true"}, 201, None),
    ],
)
def test_a_correction_needs_consent_and_a_text(
    tmp_path: Path, fields: dict[str, str], status: int, code: str | None
) -> None:
    told, found = asyncio.run(ask(collecting(tmp_path), "/v1/corrections", form(**fields)))
    assert told == status and found.get("error", {}).get("code") == code
    assert (tmp_path / "manifest.tsv").exists() is (status == 201)


def test_a_correction_whose_sound_is_not_decoded_in_time(tmp_path: Path) -> None:
    made = collecting(tmp_path, timeout=0.2)

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(30)
        yield None

    made.state.server.dispatcher.decoders.opened = opened
    status, _ = asyncio.run(ask(made, "/v1/corrections", form(text="a", consent="true")))
    assert status == 504 and not (tmp_path / "manifest.tsv").exists()


def test_one_model_is_told(tmp_path: Path) -> None:
    made = app_of(tmp_path, abilities(timed=False))
    status, found = asyncio.run(ask(made, "/v1/models/m", method="GET"))
    assert status == 200 and found["id"] == "m" and found["tasks"] == ["transcribe"] and not found["live"]
    status, found = asyncio.run(ask(made, "/v1/models/gpt-9", method="GET"))
    assert status == 404 and found["error"]["code"] == "model_not_found"


def test_a_name_of_openais_means_the_first_model_for_the_task() -> None:
    both = abilities(tasks=("transcribe", "translate"), frames=False)
    models = {"first": abilities(), "second": both}
    for name in ({}, {"model": ["whisper-1"]}):
        for task, wanted in (("transcribe", "first"), ("translate", "second")):
            assert understand(name, task, models, strict=False).asked.model == wanted
    with pytest.raises(ApiError) as raised:
        understand({}, "translate", {"first": abilities()}, strict=False)
    assert raised.value.code == "unsupported_task"


@pytest.mark.parametrize(
    ("named", "wanted"), [(None, "second"), ("gpt-realtime", "second"), ("third", "third"), ("m", "m")]
)
def test_a_live_session_begins_with_the_model_of_its_address(
    tmp_path: Path, named: str | None, wanted: str
) -> None:
    state = app_of(tmp_path, abilities(frames=False)).state.server
    state.dispatcher.abilities |= {"second": abilities(), "third": abilities()}
    socket = FakeSocket()
    asyncio.run(Session(socket, state, named).run())  # type: ignore[arg-type]
    assert socket.events[0]["session"]["audio"]["input"]["transcription"]["model"] == wanted


def test_small_uploads_do_not_wait_for_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a decoder that looks for the pauses of an hour of sound, nor for a place."""
    decoders = Decoders(2, max_seconds=10, ffmpeg=False, restarted=lambda: None)
    busy, untouched = decoders.all
    done = asyncio.Event()

    async def opening(sound: Sound) -> None:
        if sound.upload.size > LARGE_BYTES:
            assert sound.decoder is busy
            await done.wait()
        else:
            assert sound.decoder is untouched

    monkeypatch.setattr(Sound, "open", opening)

    async def read(size: int) -> None:
        upload = Upload()
        upload.write(bytes(size))
        async with decoders.opened(upload, abilities()):
            pass

    async def run() -> None:
        large = [asyncio.create_task(read(LARGE_BYTES + 1)) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*map(read, [1000] * 20)), 5)
        done.set()
        await asyncio.gather(*large)

    asyncio.run(run())
    decoders.close()
    assert busy.reading == untouched.reading == 0
