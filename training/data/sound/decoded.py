"""Files that only ffmpeg reads, decoded once and kept while stretches of them are asked for.

A jump into AAC, Opus or MPEG-TS gives other samples than decoding from the start does, and lands beside its mark. So
a file is decoded from its first sample to its last, and a stretch is a slice of that. The files decoded last stay
with the process (short sound in memory, long sound in unnamed temporary files): many stretches of one recording
cost one decoding.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from training.data.sound import ffmpeg
from training.data.sound.container_end import wrong_end
from training.data.sound.info import AudioError, AudioInfo

MEMORY_BYTES = 64 * 2**20
"""A file whose decoded sound is larger (5 minutes and 49 seconds of 48 kHz mono) is kept on disk."""
KEPT_IN_MEMORY = 4 * MEMORY_BYTES
"""Bytes of decoded files in memory, all together."""
KEPT_ON_DISK = 16 * 2**30
"""Bytes of decoded files on disk, all together: 12 hours of 48 kHz stereo. A file that needs more is not kept: each
stretch of it is decoded from the start."""
_DISK_SHARE = 0.5
"""Share of the free space of the temporary folder that is taken at most."""

_log = logging.getLogger(__name__)


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
    """The whole of a file, decoded unless this process still keeps it.

    key: what tells this content from every other. Raises `training.data.sound.info.AudioError`.
    """
    with _lock:
        whole = _kept.pop(key, None)
    if whole is None:
        whole = _decode(source)
    with _lock:
        _kept[key] = whole
        _drop_the_oldest()
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


_kept: dict[Hashable, Decoded] = {}
"""The files that were decoded last, the latest at the end."""
_lock = threading.Lock()


def _drop_the_oldest() -> None:
    memory = disk = 0
    for key in reversed(list(_kept)):
        samples = _kept[key].samples
        if isinstance(samples, np.memmap):
            disk += samples.nbytes
        else:
            memory += 1024 + (0 if samples is None else samples.nbytes)
        if memory > KEPT_IN_MEMORY or disk > KEPT_ON_DISK:
            del _kept[key]


def _forget() -> None:
    """For a process that was forked while another thread held the lock: what the parent has decoded stays readable."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _decode(source: ffmpeg.Source) -> Decoded:
    if (wrong := wrong_end(source.handle, source.container)) is not None:
        raise AudioError(source.name, wrong)
    kept, sample_rate, channels = _Kept(), 0, 0
    for block, rate in ffmpeg.decode(source):
        sample_rate, channels = rate, block.shape[1]
        kept.add(block)
    if not kept.frames:
        raise AudioError(source.name, "holds no samples")
    samples = kept.samples(channels)
    if samples is None:
        _log.warning(
            "%s: too long to be kept decoded, so that each stretch of it is decoded from the start: convert it to "
            "WAV or FLAC",
            source.name,
        )
    return Decoded(sample_rate, channels, kept.frames, samples)


class _Kept:
    """Blocks in memory, then in an unnamed file, then nowhere: only their number is known."""

    def __init__(self) -> None:
        self.frames = 0
        self._blocks: list[np.ndarray] | None = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._room = 0.0

    def add(self, block: np.ndarray) -> None:
        self.frames += len(block)
        self._bytes += block.nbytes
        if self._blocks is None:
            return
        if self._file is None and self._bytes <= MEMORY_BYTES:
            self._blocks.append(block)
            return
        try:
            if not self._written(block):
                self._blocks, self._file = None, None
        except OSError:  # the disk is full after all: others write there too
            self._blocks, self._file = None, None

    def _written(self, block: np.ndarray) -> bool:
        assert self._blocks is not None
        if self._file is None:
            self._room = min(KEPT_ON_DISK, _DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free)
            self._file = tempfile.TemporaryFile(prefix="polyvox-sound-")  # noqa: SIM115
        if self._bytes > self._room:
            return False
        for one in [*self._blocks, block]:
            self._file.write(one.tobytes())
        self._file.flush()
        self._blocks = []
        return True

    def samples(self, channels: int) -> np.ndarray | None:
        if self._blocks is None:
            return None
        if self._file is None:
            return np.concatenate(self._blocks)
        return np.memmap(self._file, np.float32, "r", shape=(self.frames, channels))
