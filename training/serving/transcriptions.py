"""``POST /v1/audio/transcriptions`` and ``/v1/audio/translations``."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from training.serving.dispatcher import Done
from training.serving.errors import ApiError, failed, stopping, too_late, traced
from training.serving.fields import ParsedRequest, understand
from training.serving.formats import MEDIA_TYPES, expected_language, rendered, written_language
from training.serving.uploads import ClientGone, Upload, read_form
from training.transcription.transcript import Segment

if TYPE_CHECKING:
    from training.serving.state import State

COMMENT_SECONDS = 15.0
"""Between two comments of a stream: programs in between close connections that are silent."""
IGNORED = "Polyvox-Ignored"
LANGUAGE = "Content-Language"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The second tells nginx to pass events on as they come, however it is set up."""
CLOSED = 499
"""The status that nginx logs for a client that left; nobody gets it."""

logger = logging.getLogger(__name__)


async def answer(request: Request, state: State, task: str) -> Response:
    """Read the form, transcribe its file, answer. Raises `ApiError`."""
    timeout = state.settings.timeout
    began: float = request.state.began
    left = max(0.0, began + timeout - asyncio.get_running_loop().time())
    try:
        async with asyncio.timeout(left) as limit:
            form = await read_form(
                request.receive,
                request.headers.get("content-type", ""),
                state.settings.max_bytes,
                state.settings.max_mb,
            )
            try:
                question, upload = _understood(form.fields, form.upload, state, task)
                if question.stream:
                    streamed = _Stream(state, question, upload, began, limit.when())
                    form.upload = None  # the stream closes it
                    return StreamingResponse(
                        streamed.events(request.receive),
                        media_type="text/event-stream",
                        headers={**STREAM_HEADERS, **_headers(question), **streamed.language},
                    )
                done = await _unless_gone(
                    state.dispatcher.transcribe(question.asked, upload, began), request.receive
                )
            finally:
                form.close()
    except TimeoutError:
        raise too_late(timeout) from None
    except asyncio.CancelledError:
        if not state.occupancy.stopping:
            raise
        raise stopping() from None  # the time of --grace is over
    except ClientGone:
        state.metrics.gone.inc()
        return Response(status_code=CLOSED)
    except ApiError:
        raise
    except Exception as error:
        logger.error(f"a request failed: {traced(error)}")
        raise failed() from None
    return _response(done, question, state)


def _understood(
    fields: Mapping[str, list[str]], upload: Upload | None, state: State, task: str
) -> tuple[ParsedRequest, Upload]:
    if upload is None:
        raise ApiError(*_no_file(fields), param="file", code="missing_file")
    question = understand(fields, task, state.dispatcher.abilities, strict=state.settings.strict)
    if not upload.size:
        raise ApiError(400, "file: is empty (0 bytes)", param="file", code="empty_audio")
    return question, upload


def _no_file(fields: Mapping[str, list[str]]) -> tuple[int, str]:
    if "file" in fields or any(name in fields for name in ("url", "file_url")):
        return (
            400,
            "file: must be the sound itself, as a part with a filename; this server opens no addresses",
        )
    return 422, "file: is missing"


def _headers(question: ParsedRequest) -> dict[str, str]:
    if not question.ignored:
        return {}
    # A name that is no token of HTTP could end the header.
    names = sorted(
        {name for name in question.ignored if name.removesuffix("[]").isidentifier() and name.isascii()}
    )
    return {IGNORED: ", ".join(names)[:1000]} if names else {}


def _response(done: Done, question: ParsedRequest, state: State) -> Response:
    abilities = state.dispatcher.abilities[question.asked.model]
    state.metrics.audio.inc(done.transcript.seconds)
    headers = _headers(question)
    language = written_language(done.transcript, question.asked.options.task, abilities)
    if language is not None:
        headers[LANGUAGE] = language
    return Response(
        rendered(done.transcript, question, abilities, done.notes),
        media_type=MEDIA_TYPES[question.response_format],
        headers=headers,
    )


async def _unless_gone(work: Awaitable[Done], receive: Callable[[], Awaitable[Any]]) -> Done:
    """The result of the work; it is cancelled, and `ClientGone` raised, where the client leaves before."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Stream:
    """One answer in events (``text/event-stream``)."""

    def __init__(
        self, state: State, question: ParsedRequest, upload: Upload, began: float, until: float | None
    ) -> None:
        self.state, self.question, self.upload = state, question, upload
        self.began, self.until = began, until
        self.news: asyncio.Queue[str | None] = asyncio.Queue()
        self.abilities = state.dispatcher.abilities[question.asked.model]
        self._first = True

    @property
    def language(self) -> dict[str, str]:
        """The header that names it, where it is known before anything is computed."""
        code = expected_language(self.question, self.abilities)
        return {} if code is None else {LANGUAGE: code}

    async def events(self, receive: Callable[[], Awaitable[Any]]) -> AsyncIterator[str]:
        """The lines of the stream. The work ends with it, also where the client leaves."""
        work = asyncio.create_task(self._work())
        work.add_done_callback(lambda _: self.upload.close())
        watch = asyncio.create_task(_disconnected(receive))
        watch.add_done_callback(lambda _: self.news.put_nowait(None))
        try:
            while True:
                try:
                    async with asyncio.timeout(COMMENT_SECONDS):
                        event = await self.news.get()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return
                yield event
        except asyncio.CancelledError:
            if not self.state.occupancy.stopping:
                raise
            yield _event("error", **stopping().body)  # the time of --grace is over
        finally:
            work.cancel()
            watch.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _work(self) -> None:
        try:
            async with asyncio.timeout_at(self.until):
                done = await self.state.dispatcher.transcribe(
                    self.question.asked, self.upload, self.began, self._segment
                )
            self.state.metrics.audio.inc(done.transcript.seconds)
            task, transcript = self.question.asked.options.task, done.transcript
            language = written_language(transcript, task, self.abilities)
            self._event("transcript.text.done", text=transcript.text, language=language)
        except TimeoutError:
            self._event("error", **too_late(self.state.settings.timeout).body)
        except ApiError as error:
            self._event("error", **error.body)
        except asyncio.CancelledError:
            if not self.state.occupancy.stopping:
                self.state.metrics.gone.inc()
            raise
        except Exception as error:
            logger.error(f"a stream failed: {traced(error)}")
            self._event("error", **failed().body)
        finally:
            self.news.put_nowait(None)

    def _segment(self, segment: Segment) -> None:
        text = segment.texts[self.question.asked.options.task]
        if text:
            self._event("transcript.text.delta", delta=text if self._first else f" {text}")
            self._first = False

    def _event(self, type_: str, **content: Any) -> None:
        self.news.put_nowait(_event(type_, **content))


def _event(type_: str, **content: Any) -> str:
    return f"data: {json.dumps({'type': type_, **content}, ensure_ascii=False)}\n\n"
