"""The processes that decode uploads, and an upload that one of them is reading."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.serving.errors import ApiError
from training.serving.messages import Message, payload_of
from training.serving.options import Abilities
from training.serving.uploads import Upload
from training.serving.worker import ProcessEnded, ProcessNotRunning, Worker
from training.transcription.windows import Window

logger = logging.getLogger(__name__)

MODULE = "training.serving.decode_process"
ANSWER_SECONDS = 180.0
"""Of real time, for one answer of a decoder; of its computing see `training.serving.decode_process.SECONDS`."""
OPEN_FOR_EACH = 8
"""Uploads that a decoder reads by turns."""
LARGE_BYTES = 1_000_000
"""A larger upload can hold so much sound that a decoder takes seconds to look where it pauses (10 s for an hour of MP3)."""


@dataclass(eq=False)
class Decoder:
    """One process. restarted: is told before it is started again. reading: bytes of the uploads that it reads."""

    restarted: Callable[[], object] = lambda: None

    worker: Worker = field(default_factory=lambda: Worker(MODULE, {"OMP_NUM_THREADS": "1"}))
    reading: int = 0

    async def call(self, head: Mapping[str, Any], files: tuple[int, ...] = (), longest: int = 0) -> Message:
        """Its answer, with at most ``longest`` bytes of sound; a dead process is started again first. Raises `ProcessEnded`."""
        if not self.worker.running:
            self.restarted()
            self.worker.start()
            await self.worker.call({"do": "close", "number": 0}, timeout=ANSWER_SECONDS)
        try:
            return await self.worker.call(head, files=files, timeout=ANSWER_SECONDS, longest=longest)
        except ProcessNotRunning:
            return await self.call(head, files, longest)


@dataclass(eq=False)
class Sound:
    """An upload that is open in a decoder. seconds: of sound. windows: how it is cut."""

    decoder: Decoder
    number: int
    upload: Upload
    asked: Mapping[str, Any]
    seconds: float = 0.0
    windows: tuple[Window, ...] = ()
    notes: list[str] = field(default_factory=list)
    _ready: np.ndarray | None = None
    _read: int = 0
    _started: int = 0
    _opening: bool = False
    _retried: bool = False

    async def open(self) -> None:
        """Find its length and its windows. Raises `ApiError` for what is no sound, or too much of it."""
        head = {**self.asked, "do": "open", "number": self.number, "first": self._read}
        self._opening = True
        try:
            answer = await self.decoder.call(head, (self.upload.file,), self._longest)
        except ProcessEnded:
            if self._retried:
                raise
            self._retried = True
            answer = await self.decoder.call(head, (self.upload.file,), self._longest)
        self._opening = False
        found = _answered(answer)
        self._started = self.decoder.worker.starts
        self.seconds = found.head["seconds"]
        self.windows = tuple(Window(*one) for one in found.head["windows"])
        self._keep(found)

    async def next(self) -> np.ndarray:
        """Samples of the next window, float32 ``[time]``.

        An upload that shared its decoder with one that ended it is opened again in a new one.
        """
        if self._ready is None and not self._is_lost:
            asked = {"do": "next", "number": self.number}
            worker = self.decoder.worker
            try:
                answer = await worker.call(asked, timeout=ANSWER_SECONDS, longest=self._longest)
                self._keep(_answered(self._known(answer)))
            except ProcessNotRunning:
                pass  # another upload ended the process: this one is opened again below
            except ProcessEnded:
                if self._retried:
                    raise
                self._retried = True
        if self._ready is None:
            await self.open()
        samples, self._ready = self._ready, None
        assert samples is not None
        self._read += 1
        return samples

    def _known(self, answer: Message) -> Message:
        """The answer of a process that has this upload open.

        Raises `ProcessNotRunning` where the process is a new one, else `ProcessEnded`.
        """
        if not answer.head.get("lost"):
            return answer
        logger.error("a decoder does not know an upload; it is opened again")
        raise (ProcessNotRunning if self._is_lost else ProcessEnded)("the upload is not open")

    def _keep(self, found: Message) -> None:
        if "samples" in found.head:
            self._ready = np.frombuffer(found.payload, dtype=np.float32)
        if (note := found.head.get("note")) and note not in self.notes:
            self.notes.append(note)

    @property
    def _longest(self) -> int:
        """Bytes of a window."""
        return payload_of(self.asked["cutting"]["longest"], self.asked["sample_rate"])

    @property
    def _is_lost(self) -> bool:
        """Whether the process that had it open is gone."""
        return self._started != self.decoder.worker.starts or not self.decoder.worker.running

    async def close(self) -> None:
        """The decoder forgets it, where it has not given out its last window."""
        left = len(self.windows) - self._read - (self._ready is not None)
        if self.decoder.worker.running and (self._opening or (left > 0 and not self._is_lost)):
            await self.decoder.call({"do": "close", "number": self.number})


def _answered(message: Message) -> Message:
    if "fault" in message.head:
        logger.error(f"a decoder failed: {message.head['fault']}")
    if "error" in message.head:
        status, reason, code = message.head["error"]
        raise ApiError(status, reason, param="file", code=code)
    return message


class Decoders:
    """Some decoders; an upload goes to the one that reads the fewest bytes.

    Large uploads have all of them but one, and half of the places, so that small ones do not wait for them.
    """

    def __init__(
        self, count: int, *, max_seconds: float, ffmpeg: bool, restarted: Callable[[], object]
    ) -> None:
        self.all = [Decoder(restarted) for _ in range(count)]
        self.max_seconds, self.ffmpeg = max_seconds, ffmpeg
        self._numbers = itertools.count(1)
        self._places = asyncio.Semaphore(OPEN_FOR_EACH * count)
        self._large_places = asyncio.Semaphore(OPEN_FOR_EACH * count // 2)

    async def start(self) -> None:
        """Start them all."""
        for decoder in self.all:
            decoder.worker.start()
        await asyncio.gather(*(decoder.call({"do": "close", "number": 0}) for decoder in self.all))

    def close(self) -> None:
        for decoder in self.all:
            decoder.worker.close()

    @asynccontextmanager
    async def opened(self, upload: Upload, abilities: Abilities) -> AsyncIterator[Sound]:
        """An upload that is being read, when there is a place for it. Raises `ApiError`."""
        large = upload.size > LARGE_BYTES
        async with (
            self._large_places if large else nullcontext(),
            self._places,
            self._read(self._least_busy(large), upload, abilities) as sound,
        ):
            yield sound

    def _least_busy(self, large: bool) -> Decoder:
        decoders = self.all[:-1] if large and len(self.all) > 1 else self.all
        return min(decoders, key=lambda one: one.reading)

    @asynccontextmanager
    async def _read(self, decoder: Decoder, upload: Upload, abilities: Abilities) -> AsyncIterator[Sound]:
        asked = {
            "cutting": dict(abilities.cutting),
            "looks": abilities.looks,
            "sample_rate": abilities.sample_rate,
            "max_seconds": self.max_seconds,
            "ffmpeg": self.ffmpeg,
        }
        sound = Sound(decoder, next(self._numbers), upload, asked)
        decoder.reading += upload.size
        try:
            await sound.open()
            yield sound
        except ProcessEnded as error:
            raise ApiError(
                400,
                "the file could not be decoded: the decoder took too much memory or time for it, or broke",
                param="file",
                code="undecodable_audio",
            ) from error
        finally:
            decoder.reading -= upload.size
            await asyncio.shield(_forgotten(sound))


async def _forgotten(sound: Sound) -> None:
    with suppress(ProcessEnded):  # with its process
        await sound.close()
