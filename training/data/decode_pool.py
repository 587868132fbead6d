"""Many sounds decoded and measured: in this process, or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType

from training.base.errors import UserError
from training.data.audio import AudioError
from training.data.example import AudioRef
from training.data.levels import Level
from training.data.sound_checks import DECODE_BELOW, decoded
from training.data.workers import follow, interrupts_held

FEWEST = 64
"""Sounds; to start processes for fewer takes longer than to decode them."""
_CHUNK = 8


def will_decode(clips: int, wanted: bool | None, opened: bool, report: Callable[[str], object]) -> bool:
    """Whether so many ``clips`` are decoded, and a line to ``report`` that says so.

    wanted: the choice of the user; None: no choice, then it depends on `DECODE_BELOW`. opened: whether files are opened.
    Raises `UserError` where they are not and decoding is wanted.
    """
    if not opened:
        if wanted:
            raise UserError("--decode: --skip_audio_check opens no file; leave out one of them")
        return False
    decode = clips < DECODE_BELOW if wanted is None else wanted
    what = "each is decoded to its end" if decode else "their headers are read, none is decoded"
    if wanted is None:
        what += (
            " (--no_decode reads the headers only, which is faster)"
            if decode
            else f" because they are {DECODE_BELOW:,} or more (--decode decodes them, which finds more damage)"
        )
    if clips:
        report(f"{clips:,} clips: {what}")
    return decode


class DecodePool:
    """Results of `training.data.sound_checks.decoded` for many files, in their order for any number of processes.

    Processes are spawned, never forked: threads of other libraries may hold locks here. They are ended when the block
    is left, also by Ctrl-C.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def levels(self, refs: Sequence[AudioRef]) -> Iterator[Level | AudioError]:
        """One answer for each of ``refs``. Raises `UserError` where the system has ended a process."""
        if self.workers < 2 or (self._pool is None and len(refs) < FEWEST):
            yield from map(decoded, refs)
            return
        if self._pool is None:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, follow, (os.getpid(),))
        try:
            with interrupts_held():
                found = self._pool.map(decoded, refs, chunksize=_CHUNK)  # processes start here
            yield from found
        except BrokenProcessPool as error:
            raise UserError(
                f"--workers {self.workers}: one of the processes was ended by the system (memory?), nothing was written; "
                "call again with --workers 1"
            ) from error
