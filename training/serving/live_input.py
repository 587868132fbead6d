"""A speaker's sound on its way to the `Segmenter`: in blocks, outside the event loop, not much faster than it is spoken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import numpy as np

from training.serving.live import Began, Ended, Segmenter

LEAST, MOST = 0.05, 0.5
"""Seconds of sound that are looked at together: shorter pieces wait for each other, longer ones are split, so that speakers
take turns."""
AHEAD = 30.0
"""Seconds of sound that may come at once."""
PACE = 2.0
"""Seconds of sound that are taken in a second after that. A speaker whose connection stood still catches up."""
MESSAGE_SECONDS = 0.004
"""A message counts as so much sound: each one takes the server time, however little is in it."""
SAMPLE_BYTES = 2


class Pace:
    """How much faster than it is spoken the sound of one connection is taken. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead, self._at = 0.0, clock()

    def wait(self, seconds: float) -> float:
        """Seconds to wait before so much more sound is taken."""
        now = self._clock()
        self._ahead = max(0.0, self._ahead - PACE * (now - self._at)) + seconds
        self._at = now
        return max(0.0, (self._ahead - AHEAD) / PACE)


class LiveInput:
    """The sound of a session, until its settings change.

    Args:
        segmenter: cuts it into windows.
        rate: of the sound, in Hz.
        began: second of the session at which this sound begins.
        pace: of the connection.
        thread: where the segmenter computes: an hour of sound that comes at once would hold up the event loop.
    """

    def __init__(self, segmenter: Segmenter, rate: int, began: float, pace: Pace, thread: Executor) -> None:
        self.segmenter, self.rate, self.pace, self.thread = segmenter, rate, pace, thread
        self._began, self._taken = began, 0
        self._rest = bytearray()

    @property
    def end(self) -> float:
        """Second of the session up to which sound has come."""
        return self._began + (self._taken + len(self._rest) // SAMPLE_BYTES) / self.rate

    def blocks(self, data: bytes) -> Iterator[bytes]:
        """The sound that has come, in blocks for `take`. data: samples of 16 bits."""
        self._rest += data
        least, most = (SAMPLE_BYTES * round(seconds * self.rate) for seconds in (LEAST, MOST))
        while len(self._rest) >= least:
            block = bytes(self._rest[:most])
            del self._rest[:most]
            yield block

    async def take(self, block: bytes) -> list[Began | Ended]:
        """Hear a block, when it is its time; what follows from it."""
        if (wait := self.pace.wait(len(block) / SAMPLE_BYTES / self.rate)) > 0:
            await asyncio.sleep(wait)
        self._taken += len(block) // SAMPLE_BYTES
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._add, block)

    def _add(self, block: bytes) -> list[Began | Ended]:
        return self.segmenter.add(np.frombuffer(block, "<i2").astype(np.float32) / 32768)

    async def finish(self) -> list[Began | Ended]:
        """The window ends here, whoever speaks."""
        rest = bytes(self._rest)
        self._rest.clear()
        found = await self.take(rest) if rest else []
        return found + await asyncio.get_running_loop().run_in_executor(self.thread, self.segmenter.finish)
