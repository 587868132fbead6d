"""Whether the sound of a row can be used: there, whole, as long as stated, neither too short nor too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from training.data.audio import AudioError
from training.data.example import Example
from training.data.ledger import Drop

TOLERANCE_SECONDS = 0.5
TOLERANCE_SHARE = 0.05
"""Stated and real duration may differ by the larger of the two: beyond that, text and sound do not belong together."""


class Rows(Protocol):
    """What a data source offers: `training.data.manifest.Manifest`, `training.data.source.DatasetSource`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...
    @property
    def durations(self) -> np.ndarray: ...
    def select(self, indices: Sequence[int] | np.ndarray) -> Any: ...
    def waveform(self, index: int, sample_rate: int) -> np.ndarray: ...
    def seconds(self, index: int) -> float: ...


def length_problem(example: Example, seconds: float) -> str | None:
    """What is wrong with a clip that really lasts ``seconds``; None when it is as long as stated, or nothing is."""
    if example.duration is None or abs(seconds - example.duration) <= max(
        TOLERANCE_SECONDS, TOLERANCE_SHARE * example.duration
    ):
        return None
    return f"the sound lasts {seconds:.3f} s, the manifest says {example.duration:.3f} s"


def check_audio(
    rows: Rows, index: int, *, min_seconds: float, max_seconds: float
) -> tuple[Example, float | Drop]:
    """The example and its real length in seconds, or why its sound cannot be used."""
    example = rows[index]
    if example.duration is not None and example.duration > max_seconds + TOLERANCE_SECONDS:
        return example, _length_drop(example, example.duration, "too_long", max_seconds)
    try:
        seconds = rows.seconds(index)
    except AudioError as error:
        reason = "missing_audio" if "no such file" in str(error) else "unreadable_audio"
        return example, Drop(example.id, reason, f"{example.source}: {error}")
    problem = length_problem(example, seconds)
    if problem:
        return example, Drop(example.id, "duration_mismatch", f"{example.source}: {problem}")
    if seconds > max_seconds:
        return example, _length_drop(example, seconds, "too_long", max_seconds)
    if seconds < min_seconds:
        return example, _length_drop(example, seconds, "too_short", min_seconds)
    return example, seconds


def _length_drop(example: Example, seconds: float, reason: str, bound: float) -> Drop:
    side = "most" if reason == "too_long" else "least"
    return Drop(example.id, reason, f"{example.source}: {seconds:.3f} s, at {side} {bound:g} s")
