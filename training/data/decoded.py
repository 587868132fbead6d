"""Files that only ffmpeg reads, decoded once and kept while stretches of them are asked for.

A jump into AAC, Opus or MPEG-TS gives other samples than decoding from the start does, and lands beside its mark. So
a file is decoded from its first sample to its last, and a stretch is a slice of that. The last file decoded stays
with the process (short sound in memory, long sound in an unnamed temporary file): many stretches of one recording
cost one decoding.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from training.data import ffmpeg
from training.data.audio_info import AudioError, AudioInfo

MEMORY_BYTES = 64 * 2**20
"""Decoded sound up to this size is kept in memory: 5 minutes and 49 seconds of 48 kHz mono."""
DISK_BYTES = 8 * 2**30
"""Decoded sound up to this size is kept in a temporary file: 6 hours of 48 kHz stereo. Longer sound is not kept:
each stretch of it is decoded from the start."""
_DISK_SHARE = 0.5
"""Share of the free space of the temporary folder that is taken at most."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """All sound of a file: ``samples`` float32 ``[frames, channels]``, None where it is too long to be kept."""

    sample_rate: int
    channels: int
    frames: int
    samples: np.ndarray | None

    @property
    def info(self) -> AudioInfo:
        """Its shape, counted."""
        return AudioInfo(self.frames / self.sample_rate, self.sample_rate, self.channels, self.frames)


def decoded(source: ffmpeg.Source, key: Hashable) -> Decoded:
    """The whole of a file, decoded unless it was the last one that this process has decoded.

    key: what tells this content from every other. Raises `training.data.audio_info.AudioError`.
    """
    global _last
    with _lock:
        if _last is not None and _last[0] == key:
            return _last[1]
        _last = None  # before the next is decoded: two long ones at once would fill the disk
        whole = _decode(source)
        _last = (key, whole)
        return whole


def blocks(source: ffmpeg.Source, whole: Decoded, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
    """Frames ``start`` to ``stop`` in float32 ``[at most size, channels]``: from what is kept, else decoded again."""
    if whole.samples is not None:
        for at in range(start, stop, size):
            yield np.array(whole.samples[at : min(at + size, stop)])
        return
    at = 0
    for block, _ in ffmpeg.decode(source):
        part = block[max(0, start - at) : max(0, stop - at)]
        for begin in range(0, len(part), size):
            yield part[begin : begin + size]
        at += len(block)
        if at >= stop:
            return


_last: tuple[Hashable, Decoded] | None = None
_lock = threading.Lock()


def _forget() -> None:
    """For a process that was forked while another thread held the lock: what the parent has decoded stays readable."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _decode(source: ffmpeg.Source) -> Decoded:
    kept, sample_rate, channels = _Kept(), 0, 0
    for block, rate in ffmpeg.decode(source):
        sample_rate, channels = rate, block.shape[1]
        kept.add(block)
    if not kept.frames:
        raise AudioError(source.name, "holds no samples")
    return Decoded(sample_rate, channels, kept.frames, kept.samples(channels))


class _Kept:
    """Blocks in memory, then in an unnamed file, then nowhere: only their number is known."""

    def __init__(self) -> None:
        self.frames = 0
        self._blocks: list[np.ndarray] | None = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, block: np.ndarray) -> None:
        self.frames += len(block)
        self._bytes += block.nbytes
        if self._blocks is None:
            return
        if self._file is None and self._bytes <= MEMORY_BYTES:
            self._blocks.append(block)
            return
        if self._bytes > DISK_BYTES or not _room_for(block.nbytes):
            self._blocks, self._file = None, None
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="polyvox-sound-")  # noqa: SIM115: the map of it keeps it
        for one in [*self._blocks, block]:
            self._file.write(one.tobytes())
        self._blocks = []

    def samples(self, channels: int) -> np.ndarray | None:
        if self._blocks is None:
            return None
        if self._file is None:
            return np.concatenate(self._blocks)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self.frames, channels))


def _room_for(size: int) -> bool:
    return shutil.disk_usage(tempfile.gettempdir()).free * _DISK_SHARE > size
