"""From an upload to a transcript: read by a decoder window by window, computed by whichever device is free, put together.

A request is one task of asyncio. Where it is cancelled, whatever of it waits is taken out; nothing of it is decoded or
computed afterwards but the window that a process has in hand.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Hypothesis
from training.models.architecture import AUTO
from training.serving.batches import SIMILAR, VERY_SIMILAR, BatchKey, QueuedWindow, WindowQueue
from training.serving.decoders import Decoders, Sound
from training.serving.devices import Device, work
from training.serving.metrics import Metrics
from training.serving.options import Abilities, Options, hypothesis_of
from training.serving.settings import Settings
from training.serving.uploads import Upload
from training.transcription.assembly import assemble, segments_of
from training.transcription.recordings import Recording
from training.transcription.spoken_language import SpokenLanguage, detected, first_windows, likeliest
from training.transcription.transcript import Segment, Transcript

logger = logging.getLogger(__name__)

AHEAD = 2
"""Windows of one request that are decoded and not yet computed."""
READY_BATCHES = 4
"""Batches of decoded windows that may wait for each device; the rest of the sound waits as it was uploaded."""
UNKNOWN = "und"


@dataclass(frozen=True)
class DecodingRequest:
    """A request that has been understood. language: of the speech, `AUTO`, or None, which is the model's own."""

    model: str
    options: Options
    language: str | None = None


@dataclass
class Done:
    """A transcript, and notes on what was done to the sound."""

    transcript: Transcript
    notes: list[str] = field(default_factory=list)


class AudioBudget:
    """Room for decoded sound."""

    def __init__(self, seconds: float) -> None:
        self.most, self.taken = seconds, 0.0
        self._news = asyncio.Condition()
        self._turn = asyncio.Lock()

    async def take(self, seconds: float) -> None:
        """Wait for room, in the order of the calls; more than all of it gets in where nothing else is there."""
        async with self._turn, self._news:  # in turn: short windows would keep a long one waiting for ever
            await self._news.wait_for(lambda: not self.taken or self.taken + seconds <= self.most)
            self.taken += seconds

    async def give(self, seconds: float) -> None:
        async with self._news:
            self.taken = max(0.0, self.taken - seconds)
            self._news.notify_all()


class Dispatcher:
    """The processes of a server, and the way of each request through them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.devices = [
            Device(name, settings.models, settings.batch_seconds, settings.batch_timeout)
            for name in settings.devices
        ]
        self.decoders = Decoders(
            settings.decoders,
            max_seconds=settings.max_seconds,
            ffmpeg=settings.ffmpeg,
            restarted=self._decoder_restarted,
        )
        self.waiting = WindowQueue()
        self.abilities: dict[str, Abilities] = {}
        self.budget = AudioBudget(READY_BATCHES * settings.batch_seconds * len(self.devices))
        self._loops: list[asyncio.Task[None]] = []

    def _decoder_restarted(self) -> None:
        self.metrics.restarts.labels("decoder").inc()
        logger.error("a process that decodes sound ended; it is started again")

    @property
    def ready(self) -> bool:
        """Whether a request would be computed now."""
        return bool(self.abilities) and any(device.ready.is_set() for device in self.devices)

    async def start(self) -> None:
        """Start all processes and load the models. Raises `UserError`, `training.serving.worker.ProcessEnded`."""
        loading = [asyncio.create_task(device.load()) for device in self.devices]
        await asyncio.gather(self.decoders.start(), *loading)
        self.abilities = loading[0].result()
        self._loops = [
            asyncio.create_task(work(device, self.waiting, self.metrics)) for device in self.devices
        ]

    async def close(self) -> None:
        """End all processes."""
        for loop in self._loops:
            loop.cancel()
        for device in self.devices:
            device.worker.close()
        self.decoders.close()

    async def transcribe(
        self,
        asked: DecodingRequest,
        upload: Upload,
        since: float,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Done:
        """The transcript of an upload.

        Args:
            asked: how.
            upload: the file.
            since: when the request came (``time.monotonic``).
            on_segment: gets each window's segment, in their order, as soon as nothing can change it.

        Raises:
            ApiError: the file cannot be decoded, or the model cannot do what is asked.
        """
        abilities = self.abilities[asked.model]
        async with self.decoders.opened(upload, abilities) as sound:
            run = _Run(self, asked, abilities, sound, since, on_segment)
            try:
                await run.read()
            finally:
                await asyncio.shield(run.end())
        return Done(run.transcript(), sound.notes)

    async def compute(
        self,
        asked: DecodingRequest,
        samples: np.ndarray,
        language: str | None,
        since: float,
        *,
        live: bool = False,
    ) -> dict[str, Any]:
        """The row of one window (see `training.serving.model_process.answer`). Raises `ApiError`."""
        abilities = self.abilities[asked.model]
        piece = QueuedWindow(
            key=BatchKey(asked.model, asked.options),
            samples=samples,
            language=language,
            seconds=len(samples) / abilities.sample_rate,
            since=since,
            result=asyncio.get_running_loop().create_future(),
            live=live,
            similarity=VERY_SIMILAR if abilities.padding_sensitive else SIMILAR,
        )
        self.waiting.add(piece)
        try:
            return await piece.result
        finally:
            self.waiting.remove(piece)


class _Run:
    """One upload on its way."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        asked: DecodingRequest,
        abilities: Abilities,
        sound: Sound,
        since: float,
        on_segment: Callable[[Segment], None] | None,
    ) -> None:
        self.dispatcher, self.asked, self.abilities, self.sound = dispatcher, asked, abilities, sound
        self.since, self.on_segment = since, on_segment
        self.recording = Recording("", sound.seconds, sound.windows)
        self.hypotheses: dict[int, Mapping[str, Hypothesis]] = {}
        self.probabilities: dict[int, Mapping[str, float]] = {}
        code = asked.language or abilities.languages[0]
        self.detects = code == AUTO
        self.language = None if code in (AUTO, UNKNOWN) else SpokenLanguage(code)
        self.timed = abilities.timed and asked.options.task == TRANSCRIBE
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = 0
        self._held = 0.0

    async def read(self) -> None:
        """Read and compute all windows."""
        windows = self.sound.windows
        first = first_windows(windows) if self.detects else 0
        if first:
            await self._detect(first)
        for n in range(first, len(windows)):
            while len(self._tasks) >= AHEAD:
                await self._some_done()
            await self._take(windows[n].seconds)
            samples = await self.sound.next()
            self._tasks.add(asyncio.create_task(self._compute_one(n, samples)))
        await self._all(())

    async def _detect(self, count: int) -> None:
        """The language, by the first windows; they are computed in it."""
        windows = self.sound.windows[:count]
        seconds = sum(window.seconds for window in windows)
        await self._take(seconds)  # at once: requests that held a part each would wait for one another
        kept = [await self.sound.next() for _ in windows]
        await self._all(self._compute(n, kept[n], AUTO) for n in range(count))
        self.language = detected((window.seconds, self.probabilities[n]) for n, window in enumerate(windows))
        code = None if self.language is None else self.language.code
        again = [n for n in range(count) if likeliest(self.probabilities[n]) != code]
        await self._all(self._compute(n, kept[n], code) for n in again)
        await self._give(seconds)
        self._tell()

    async def _all(self, windows: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Wait for all. Where one fails, `end` ends the others."""
        self._tasks.update(map(asyncio.create_task, windows))
        while self._tasks:
            await self._some_done()

    async def _take(self, seconds: float) -> None:
        await self.dispatcher.budget.take(seconds)
        self._held += seconds

    async def _give(self, seconds: float) -> None:
        self._held -= seconds
        await self.dispatcher.budget.give(seconds)

    async def _compute_one(self, n: int, samples: np.ndarray) -> None:
        await self._compute(n, samples, self._prompt_language())
        await self._give(self.sound.windows[n].seconds)
        self._tell()

    def _prompt_language(self) -> str | None:
        if self.detects:
            return None if self.language is None else self.language.code
        return self.asked.language

    async def _compute(self, n: int, samples: np.ndarray, language: str | None) -> None:
        row = await self.dispatcher.compute(self.asked, samples, language, self.since)
        self.since = time.monotonic()  # the next window goes behind those that wait already
        self.hypotheses[n] = {task: hypothesis_of(one) for task, one in row["hypotheses"].items()}
        self.probabilities.setdefault(n, row["languages"])

    async def _some_done(self) -> None:
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        # Each is asked for its fault: one that nobody asks for is logged with its message, which can hold a request's words.
        faults = [fault for task in done if (fault := task.exception()) is not None]
        if faults:
            raise faults[0]

    async def end(self) -> None:
        """Take out what still waits, and give the room back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._give(self._held)

    def _tell(self) -> None:
        """Hand out the segments that nothing can change: the next window is known where the two overlap."""
        if self.on_segment is None:
            return
        windows = self.sound.windows
        while self._told in self.hypotheses:
            after = self._told + 1
            overlaps = after < len(windows) and windows[after].stitch_at is not None
            if overlaps and after not in self.hypotheses:
                return
            self.on_segment(self._segments(after + overlaps)[self._told])
            self._told = after

    def _segments(self, count: int) -> list[Segment]:
        return segments_of(
            self.sound.windows[:count],
            [self.hypotheses[n] for n in range(count)],
            tasks=(self.asked.options.task,),
            timed=self.timed,
        )

    def transcript(self) -> Transcript:
        """When all is computed."""
        return assemble(
            self.recording,
            [self.hypotheses[n] for n in range(len(self.sound.windows))],
            tasks=(self.asked.options.task,),
            timed=self.timed,
            language=self.language,
        )
