"""The interface of a teacher: a model that gives times to the words of a reference. It is a trained model of this
library or a stock Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.data.example import Example, SpokenWord


class NoTimes(ValueError):
    """Why the words of an utterance have no times."""


@dataclass(frozen=True)
class Clip:
    """An utterance and its sound: float32 mono at the teacher's ``sample_rate``."""

    example: Example
    waveform: np.ndarray


@dataclass(frozen=True)
class Timed:
    """The reference's words with their times, and the text that the teacher itself recognised."""

    words: tuple[SpokenWord, ...]
    recognised: str


class Teacher(Protocol):
    """``clips -> Timed`` for each, or the reason why there is none. ``language`` is of speech that names none."""

    sample_rate: int
    language: str

    def __call__(self, clips: Sequence[Clip]) -> list[Timed | NoTimes]: ...
