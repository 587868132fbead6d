"""Whether the sound of a row can be used: there, whole, as long as stated, neither too short nor too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from training.data.audio import AudioError
from training.data.example import Example
from training.data.ledger import Drop
from training.data.lengths import length_drop, length_problem, stated_drop
from training.data.levels import Level, measure_blocks
from training.data.sound_checks import attempt, channel_note, decoded_drop, error_drop


class Rows(Protocol):
    """The interface of a data source: `training.data.manifest.Manifest`, `training.data.sources.dataset.DatasetSource`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...
    @property
    def durations(self) -> np.ndarray: ...
    def select(self, indices: Sequence[int] | np.ndarray) -> Any: ...
    def waveform(self, index: int, sample_rate: int) -> np.ndarray: ...
    def blocks(self, index: int) -> Iterator[tuple[np.ndarray, int]]: ...
    def seconds(self, index: int) -> float: ...


def check_audio(
    rows: Rows,
    index: int,
    *,
    min_seconds: float,
    max_seconds: float,
    decode: bool = False,
    notes: list[Drop] | None = None,
) -> tuple[Example, float | Drop]:
    """The example and its real length in seconds, or why its sound cannot be used.

    Reads the header; with ``decode`` also the sound to its last sample (`training.data.sound_checks`).
    ``notes`` is given what there is to say of a sound that can be used.
    """
    example = rows[index]
    if drop := stated_drop(example, max_seconds):
        return example, drop
    try:
        seconds = rows.seconds(index)
    except AudioError as error:
        return example, error_drop(example, error)
    except OSError as error:
        refused = AudioError(example.audio.path, f"cannot be read: {error.strerror or error}")
        return example, error_drop(example, refused)
    if problem := length_problem(example, seconds):
        return example, Drop(example.id, "duration_mismatch", f"{example.source}: {problem}")
    drop = length_drop(example, seconds, min_seconds, max_seconds)
    if drop or not decode:
        return example, drop or seconds
    found = attempt(lambda: measure_blocks(rows.blocks(index), example.audio.path), example.audio.path)
    drop = decoded_drop(
        example, found, example.texts.values(), min_seconds=min_seconds, max_seconds=max_seconds
    )
    note = channel_note(example, found)
    if note is not None and drop is None and notes is not None:
        notes.append(note)
    return example, drop or (found.seconds if isinstance(found, Level) else seconds)
