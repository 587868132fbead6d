"""What training samples practise for recordings of any length: times in the labels, the text before in the prompt.

Pipelines for long recordings (Whisper's own, faster-whisper, whisper.cpp) decode windows of 30 s with timestamp tokens
and with the text of the windows before as prompt. A model that is tuned on single clips without either forgets both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from training.data.augment import Moved
from training.data.example import TRANSCRIBE, Example, Segment

PAUSE = 0.5
"""Seconds between two words from which on they belong to two segments."""
WINDOW = 30.0
"""Seconds of speech before a sample whose text may be its prompt: one window of long-form decoding."""
CUT = 0.5
SHORTEST_CUT = 0.3
"""Seconds of the next clip that a cut sample has at least."""
_STREAM = 1
"""Parts the draws of this module from those of augmentation."""


class Practice(NamedTuple):
    """What one sample practises. ``cut``: it ends within the clip after its last one."""

    timestamps: bool = False
    previous_text: bool = False
    cut: bool = False


@dataclass(frozen=True)
class LongForm:
    """Which samples practise what: drawn from seed, epoch and row, so the same for any number of workers and processes.

    timestamps, previous_text: shares of the samples. before: the row before each row in its recording, -1 where there
    is none, int64 ``[rows]``. cut: share of the joined samples with times that go on into the next clip of the recording
    and end within it, as windows of a long recording do; of that clip the label is its start alone, as in Whisper's own
    training (Radford et al., 2022, 2.3).
    """

    timestamps: float
    previous_text: float
    seed: int
    before: np.ndarray
    cut: float = CUT

    def drawn(self, epoch: int, rows: Sequence[int]) -> Practice:
        """What the sample of these rows practises in this epoch."""
        draw = np.random.default_rng([self.seed, epoch, rows[0], _STREAM])
        first, second, third = draw.random(3).tolist()
        timed = first < self.timestamps
        cut = timed and len(rows) > 1 and third < self.cut and self.after[rows[-1]] >= 0
        return Practice(timed, second < self.previous_text and self.before[rows[0]] >= 0, bool(cut))

    @cached_property
    def after(self) -> np.ndarray:
        """The row after each row in its recording, -1 where there is none, int64 ``[rows]``."""
        found = np.full(len(self.before), -1, dtype=np.int64)
        later = np.flatnonzero(self.before >= 0)
        found[self.before[later]] = later
        return found

    def cut_at(self, epoch: int, row: int, clip: int, room: int, sample_rate: int) -> int:
        """Samples of the clip ``row`` that a cut sample takes: a third to nine tenths, no more than ``room``; 0 where that
        is less than `SHORTEST_CUT`."""
        share = np.random.default_rng([self.seed, epoch, row, _STREAM, 1]).uniform(1 / 3, 0.9)
        taken = min(room, int(share * clip))
        return taken if taken >= SHORTEST_CUT * sample_rate else 0

    def previous(self, rows: Any, row: int) -> dict[str, str]:
        """By task the texts of the clips before ``row`` in its recording, up to `WINDOW` seconds of them."""
        found: list[Example] = []
        while (row := int(self.before[row])) >= 0 and sum(one.duration for one in found) < WINDOW:
            found.insert(0, rows[row])
        tasks = found[0].texts if found else ()
        return {task: " ".join(one.texts[task] for one in found) for task in tasks}

    def select(self, indices: Sequence[int] | np.ndarray) -> LongForm:
        """The same for the rows ``indices``, in that order; a row whose predecessor is not among them has none."""
        chosen = np.asarray(indices, dtype=np.int64)
        places = np.full(len(self.before) + 1, -1, dtype=np.int64)  # the last one stands for "none"
        places[chosen] = np.arange(len(chosen))
        return replace(self, before=places[self.before[chosen]])


def segments(example: Example, seconds: float) -> dict[str, tuple[Segment, ...]]:
    """The texts of a clip with their times, by task.

    Where the times of the words are known, the transcript is parted at pauses of `PAUSE` seconds and more, and the
    translation lasts from the first word to the last; otherwise a text lasts as long as the clip.

    Args:
        example: an utterance; a task without a text is left out.
        seconds: length of its sound.
    """
    start, end = 0.0, seconds
    if example.words:
        start, end = (min(max(0.0, t), seconds) for t in (example.words[0].start, example.words[-1].end))
    found: dict[str, tuple[Segment, ...]] = {
        task: (Segment(text=text, start=start, end=end),) for task, text in example.texts.items()
    }
    words = example.texts.get(TRANSCRIBE, "").split()
    if words and len(words) == len(example.words):
        found[TRANSCRIBE] = _parted(example, words, seconds)
    return found


def _parted(example: Example, words: Sequence[str], seconds: float) -> tuple[Segment, ...]:
    pairs = enumerate(pairwise(example.words), start=1)
    cuts = [0, *(n for n, (one, other) in pairs if other.start - one.end >= PAUSE), len(words)]
    return tuple(
        Segment(
            text=" ".join(words[first:last]),
            start=min(max(0.0, example.words[first].start), seconds),
            end=min(max(0.0, example.words[last - 1].end), seconds),
        )
        for first, last in pairwise(cuts)
    )


class Part(NamedTuple):
    """One clip of a sample: seconds of its own sound, how augmentation moved it, and where it begins in the sample.
    ``cut``: only its beginning is in the sample."""

    example: Example
    seconds: float
    moved: Moved
    start: float
    cut: bool = False


def placed(parts: Sequence[Part]) -> dict[str, tuple[Segment, ...]]:
    """The segments of all clips of a sample, by task, with their times in the sample."""
    found: dict[str, list[Segment]] = {}
    for part in parts:
        for task, ones in segments(part.example, part.seconds).items():
            ones = (replace(ones[0], text="", end=ones[0].start),) if part.cut else ones
            found.setdefault(task, []).extend(_at(one, part) for one in ones)
    return {task: tuple(ones) for task, ones in found.items()}


def _at(segment: Segment, part: Part) -> Segment:
    start, end = (part.start + part.moved.lead + part.moved.scale * t for t in (segment.start, segment.end))
    return replace(segment, start=start, end=end)


def practised(
    example: Example, practice: Practice, parts: Sequence[Part], previous: Mapping[str, str]
) -> Any:
    """The sample with the segments and the previous text that it practises."""
    return replace(
        example,
        segments=placed(parts) if practice.timestamps else {},
        previous=previous if practice.previous_text else {},
    )
