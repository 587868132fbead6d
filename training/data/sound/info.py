"""What a decoder returns about an audio file: its shape, or the reason why it cannot be decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class AudioError(ValueError):
    """A sound that cannot be had as asked: which file, and why."""

    def __init__(self, path: str | Path, reason: str = "") -> None:
        # One argument alone is a finished message: that is how an exception comes back from a worker.
        super().__init__(f"{path}: {reason}" if reason else str(path))


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Length and shape: ``duration`` in seconds, ``frames`` in samples per channel."""

    duration: float
    sample_rate: int
    channels: int
    frames: int
