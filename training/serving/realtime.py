"""``WS /v1/realtime``: live speech, in the events of OpenAI's realtime transcription."""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from training.data.example import TRANSCRIBE, SpokenWord
from training.serving.admission import offered_key, require_key, same_origin
from training.serving.dispatcher import DecodingRequest
from training.serving.errors import ApiError, failed, traced
from training.serving.fields import understand
from training.serving.formats import word
from training.serving.live import PAUSE, STEP, Agreement, AudioSpan, Began, Ended, Segmenter, placed
from training.serving.live_input import MESSAGE_SECONDS, SAMPLE_BYTES, LiveInput, Pace
from training.serving.live_settings import USUAL_RATE, form_fields, live_settings
from training.serving.options import hypothesis_of

if TYPE_CHECKING:
    from training.serving.state import State

IDLE_SECONDS = 300.0
"""A socket on which nothing comes for so long is closed; a microphone sends silence too."""
SHORTEST = 0.1
"""Seconds of sound that are decoded."""
PROTOCOL = "realtime"
LONGEST_WINDOW = 20.0
"""Seconds; a window without a pause is cut then, whatever the model takes."""
IDLE, GONE, FAILED, STOPPING = 1001, 1006, 1011, 1012
"""Why a socket is closed (RFC 6455)."""
_PREFIX = "conversation.item.input_audio_transcription."

logger = logging.getLogger("training.serving.access")


async def talk(socket: WebSocket, state: State) -> None:
    """One session, from the handshake to its end."""
    try:
        key = _admitted(socket, state)
    except ApiError as error:
        state.metrics.refused.labels(error.code or str(error.status)).inc()
        logger.info(f"WS /v1/realtime {error.status}")
        await socket.send_denial_response(_denial(error))
        return
    began = time.monotonic()
    state.occupancy.sockets += 1  # before anything is waited for: others may come meanwhile
    if key is not None:
        key.begin(began)
    session = Session(socket, state, socket.query_params.get("model"))
    try:
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None)
        await session.run()
    except WebSocketDisconnect:
        pass  # within the handshake
    finally:
        state.occupancy.sockets -= 1
        if key is not None:
            key.end()
        session.close()
        logger.info(f"WS /v1/realtime 101 {time.monotonic() - began:.1f} s")


def _denial(error: ApiError) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(error.body, error.status, headers=error.headers)


def _admitted(socket: WebSocket, state: State) -> Any:
    """The key, None where none is asked for. Raises `ApiError`."""
    if not same_origin(socket.scope, state.settings.origins):
        raise ApiError(403, "a page of another address opened this socket (--allow_origin)", code="origin")
    key = require_key(state.keys, offered_key(socket.scope)) if state.keys.asked else None
    if key is not None and (wait := key.wait(time.monotonic())) is not None:
        raise ApiError(429, "this key's limit is reached", code="key_limit", retry_after=wait)
    if not state.ready:
        raise ApiError(503, "the server is loading or stopping", code="not_ready", retry_after=5)
    if state.occupancy.sockets >= state.settings.sockets:
        raise ApiError(
            503, f"{state.settings.sockets} live connections are open", code="sockets", retry_after=5
        )
    return key


class Session:
    """One speaker. model: of the address; another name than that of a model here is left to ``session.update``."""

    def __init__(self, socket: WebSocket, state: State, model: str | None = None) -> None:
        self.socket, self.state = socket, state
        self.items = itertools.count(1)
        models = state.dispatcher.abilities
        usual = next((name for name, one in models.items() if one.live), next(iter(models)))
        self.settings: dict[str, Any] = {"model": model if model in models else usual}
        self.rate, self.pause = USUAL_RATE, PAUSE
        self.asked: DecodingRequest | None = None
        self.pace = Pace()
        self.input: LiveInput | None = None
        self._began = 0.0
        self.agreement = Agreement()
        self.item = ""
        self._partial: asyncio.Task[None] | None = None
        self._partial_at = 0.0
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the client leaves."""
        try:
            await self._send("session.created", session=self._told())
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await self.socket.receive()
                if (wait := self.pace.wait(MESSAGE_SECONDS)) > 0:
                    await asyncio.sleep(wait)
                if message["type"] == "websocket.disconnect":
                    return
                try:
                    await self._take(message)
                except ApiError as error:
                    await self._send("error", **error.body)
                except WebSocketDisconnect:
                    raise
                except Exception as error:
                    logger.error(f"WS /v1/realtime failed: {traced(error)}")
                    await self._send("error", **failed().body)
                    await self.socket.close(FAILED, "the server failed")
                    return
        except TimeoutError:
            await self.socket.close(IDLE, "nothing came")
        except WebSocketDisconnect:
            return

    def close(self) -> None:
        """The client has left."""
        if self._partial is not None:
            self._partial.cancel()

    async def _take(self, message: Mapping[str, Any]) -> None:
        if (data := message.get("bytes")) is not None:
            await self._add(data)
            return
        try:
            event = json.loads(message.get("text") or "")
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise ApiError(400, "an event must be a JSON object", code="invalid_event")
        kind = event.get("type")
        if kind in ("session.update", "transcription_session.update"):
            await self._update(event.get("session"))
        elif kind == "input_audio_buffer.append":
            await self._add(_decoded(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self._restart()
            await self._send("input_audio_buffer.cleared")
        else:
            raise ApiError(
                400, f"type: no such event ({str(kind)[:80]!r})", param="type", code="unknown_event"
            )

    async def _update(self, session: Any) -> None:
        if not isinstance(session, dict):
            raise ApiError(400, "session: must be an object", param="session", code="invalid_event")
        settings, rate, pause = live_settings(session, self.settings, self.rate, self.pause)
        models, strict = self.state.dispatcher.abilities, self.state.settings.strict
        question = understand(form_fields(settings), TRANSCRIBE, models, strict=strict)
        self._require_live(question.asked)
        await self._finish()
        self.settings, self.rate, self.pause, self.asked = settings, rate, pause, question.asked
        self._restart()
        await self._send("session.updated", session=self._told(), ignored=list(question.ignored))

    def _require_live(self, asked: DecodingRequest) -> None:
        abilities = self.state.dispatcher.abilities[asked.model]
        if not abilities.live:
            raise ApiError(
                400,
                f"model {asked.model}: live speech needs a CTC model, whose words have times at once",
                param="model",
                code="not_live",
            )

    def _told(self) -> dict[str, Any]:
        audio = {
            "input": {
                "format": {"type": "audio/pcm", "rate": self.rate},
                "transcription": self.settings,
                "turn_detection": {"type": "server_vad", "silence_duration_ms": round(1000 * self.pause)},
            }
        }
        return {"type": "transcription", "audio": audio}

    def _restart(self) -> None:
        """Forget what was received; the session's time goes on."""
        self.close()
        if self.input is not None:
            self._began, self.input = self.input.end, None
        self.agreement = Agreement()

    def _input(self) -> LiveInput:
        if self.input is None:
            if self.asked is None:
                models = self.state.dispatcher.abilities
                self.asked = understand(form_fields(self.settings), TRANSCRIBE, models, strict=False).asked
                self._require_live(self.asked)
            abilities = self.state.dispatcher.abilities[self.asked.model]
            longest = min(abilities.cutting["longest"], LONGEST_WINDOW)
            segmenter = Segmenter(self.rate, abilities.sample_rate, longest, self.pause, self._began)
            self.input = LiveInput(segmenter, self.rate, self._began, self.pace, self.state.segmenting)
        return self.input

    async def _add(self, data: bytes) -> None:
        if len(data) % SAMPLE_BYTES:
            raise ApiError(400, "audio: must be samples of 16 bits", param="audio", code="invalid_audio")
        live = self._input()
        for block in live.blocks(data):
            for event in await live.take(block):
                await self._follow(event)
            self._look_at(live.segmenter)
            if self.state.occupancy.stopping:  # nothing is read meanwhile, not even that the socket is closed
                raise WebSocketDisconnect(STOPPING)

    def _look_at(self, segmenter: Segmenter) -> None:
        """Make a hypothesis of the window that grows, where there is enough new sound."""
        if segmenter.speaking_since is None or segmenter.now - self._partial_at < STEP:
            return
        if self._partial is None or self._partial.done():
            self._partial_at = segmenter.now
            self._partial = asyncio.create_task(self._guess(segmenter.window(self.agreement.end), self.item))

    async def _follow(self, event: Began | Ended) -> None:
        if isinstance(event, Began):
            self._new_item()
            self._partial_at = event.at
            await self._send(
                "input_audio_buffer.speech_started", audio_start_ms=round(1000 * event.at), item_id=self.item
            )
            return
        if self._partial is not None:
            self._partial.cancel()  # what it would find is old
            await asyncio.gather(self._partial, return_exceptions=True)
        end = event.sound.start + len(event.sound.samples) / self._rate
        await self._send(
            "input_audio_buffer.speech_stopped", audio_end_ms=round(1000 * end), item_id=self.item
        )
        await self._send("input_audio_buffer.committed", item_id=self.item)
        said, self.agreement = self.agreement, Agreement()
        try:
            words = said.finish(await self._words(event.sound))
        except ApiError as error:
            await self._send(f"{_PREFIX}failed", item_id=self.item, content_index=0, **error.body)
            return
        await self._delta(words[len(said.certain) :], not said.certain)
        await self._completed(words)

    def _new_item(self) -> None:
        self.item = f"item_{next(self.items)}"

    async def _completed(self, words: list[SpokenWord]) -> None:
        await self._send(
            f"{_PREFIX}completed",
            item_id=self.item,
            content_index=0,
            transcript=" ".join(one.text for one in words),
            words=[word(one) for one in words],
        )

    @property
    def _rate(self) -> int:
        assert self.asked is not None
        return self.state.dispatcher.abilities[self.asked.model].sample_rate

    async def _commit(self) -> None:
        """The client ends the window, and waits for its text, also where nobody spoke."""
        self._input()
        if not await self._finish():
            self._new_item()
            await self._send("input_audio_buffer.committed", item_id=self.item)
            await self._completed([])

    async def _finish(self) -> bool:
        """End the window; whether there was one."""
        events = [] if self.input is None else await self.input.finish()
        for event in events:
            await self._follow(event)
        return any(isinstance(event, Ended) for event in events)

    async def _guess(self, sound: AudioSpan, item: str) -> None:
        """A hypothesis of a window that still grows. One that fails is missing; the window's last one tells of it."""
        try:
            await self._tell(await self._words(sound), sound, item)
        except ApiError as error:
            logger.info(f"WS /v1/realtime partial {error.status}")
        except WebSocketDisconnect:
            pass  # the session finds out by itself
        except Exception as error:
            logger.error(f"WS /v1/realtime partial failed: {traced(error)}")

    async def _tell(self, words: list[SpokenWord], sound: AudioSpan, item: str) -> None:
        first = not self.agreement.certain
        end = sound.start + len(sound.samples) / self._rate
        news = self.agreement.add(words, end)
        await self._delta(news, first)
        text = " ".join(one.text for one in self.agreement.open)
        await self._send("polyvox.partial", item_id=item, text=text)

    async def _words(self, sound: AudioSpan) -> list[SpokenWord]:
        assert self.asked is not None
        if len(sound.samples) < SHORTEST * self._rate:
            return []
        row = await self.state.dispatcher.compute(
            self.asked, sound.samples, self.asked.language, time.monotonic(), live=True
        )
        return placed(hypothesis_of(row["hypotheses"][TRANSCRIBE]).words, sound.start)

    async def _delta(self, words: list[SpokenWord], first: bool) -> None:
        if words:
            text = " ".join(one.text for one in words)
            await self._send(
                f"{_PREFIX}delta", item_id=self.item, content_index=0, delta=text if first else f" {text}"
            )

    async def _send(self, kind: str, **content: Any) -> None:
        async with self._sending:
            if (
                self.socket.application_state is WebSocketState.DISCONNECTED
            ):  # found by a hypothesis on its way
                raise WebSocketDisconnect(GONE)
            await self.socket.send_text(json.dumps({"type": kind, **content}))


def _decoded(audio: Any) -> bytes:
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ApiError(400, "audio: must be base64", param="audio", code="invalid_audio") from None
