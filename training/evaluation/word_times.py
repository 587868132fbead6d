"""Errors of word times against the reference: errors of starts and ends, F1, overlap.

Sums are of whole microseconds, so that they add up exactly over utterances; figures are milliseconds and percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Example, Hypothesis, SpokenWord, Word
from training.evaluation.intervals import Units, interval, median_interval, units_of
from training.evaluation.rows import text_language
from training.evaluation.statistic import Statistic, percent
from training.evaluation.word_matches import match_words

TOLERANCES = (20, 50, 100, 200)
"""Milliseconds."""
_MICRO = 1_000_000


@dataclass(frozen=True)
class Timing:
    """Differences of the times of matched words, and the number of words of each utterance.

    row: the utterance of each pair. start, end: hypothesis minus reference, microseconds. iou: shared stretch over both
    together, millionths. All int64 ``[pairs]``.
    references, hypotheses, backwards: words of each utterance, in the reference, in the hypothesis, and those of the
    hypothesis that are not monotone. All int64 ``[utterances]``.
    """

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    iou: np.ndarray
    references: np.ndarray
    hypotheses: np.ndarray
    backwards: np.ndarray

    def side(self, name: str) -> np.ndarray:
        """Differences of the ``start`` or the ``end`` of words."""
        return self.start if name == "start" else self.end

    def within(self, tolerance: int, *names: str) -> np.ndarray:
        """Whether the ``names`` (start, end) of each pair differ by at most ``tolerance`` milliseconds, bool ``[pairs]``."""
        near = [np.abs(self.side(name)) <= 1000 * tolerance for name in names]
        return np.logical_and.reduce(near)

    def sums(self, *values: np.ndarray) -> np.ndarray:
        """``[pairs]`` each, summed over the pairs of each utterance: int64 ``[utterances, values]``."""
        summed = np.zeros((len(self.references), len(values)), dtype=np.int64)
        np.add.at(summed, self.row, np.stack(values, axis=1).astype(np.int64))
        return summed

    def mean(self, values: np.ndarray, score: Callable[[Sequence[int]], float]) -> Statistic:
        """``score`` of (sum of the values, number of pairs)."""
        return Statistic(self.sums(values, np.ones_like(values)), score)


def timing(examples: Sequence[Example], hypotheses: Sequence[Sequence[SpokenWord]]) -> Timing:
    """Compare the times of recognised words with those of the reference, matched as the WER matches them.

    Args:
        examples: utterances whose ``words`` have reference times in seconds.
        hypotheses: words of each utterance, times in seconds from its start.
    """
    matches = match_words(
        [[word.text for word in example.words] for example in examples],
        [[word.text for word in words] for words in hypotheses],
        [text_language(example, TRANSCRIBE) for example in examples],
    )
    pairs = [
        (row, *_difference(example.words[i], words[j]))
        for row, (example, words, found) in enumerate(zip(examples, hypotheses, matches, strict=True))
        for i, j in found.pairs
    ]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 4)
    counts = [
        (len(found.references), len(found.hypotheses), not_monotone([words[j] for j in found.hypotheses]))
        for words, found in zip(hypotheses, matches, strict=True)
    ]
    return Timing(*table.T, *np.array(counts, dtype=np.int64).reshape(-1, 3).T)


def _difference(reference: Word, word: SpokenWord) -> tuple[int, int, int]:
    start, end, hypothesis_start, hypothesis_end = (
        round(_MICRO * seconds) for seconds in (reference.start, reference.end, word.start, word.end)
    )
    shared = max(0, min(end, hypothesis_end) - max(start, hypothesis_start))
    both = max(end, hypothesis_end) - min(start, hypothesis_start)
    return hypothesis_start - start, hypothesis_end - end, _MICRO * shared // both if both > 0 else _MICRO


def not_monotone(words: Sequence[SpokenWord]) -> int:
    """Words that end before they start, or start or end before the word before them does."""
    inside = sum(word.end < word.start for word in words[:1])
    return inside + sum(
        word.end < word.start or word.start < before.start or word.end < before.end
        for before, word in pairwise(words)
    )


def milliseconds(counts: Sequence[int]) -> float:
    """(sum of microseconds, number) to mean milliseconds; NaN where there is nothing."""
    return counts[0] / counts[1] / 1000 if counts[1] else math.nan


def onset_error(times: Timing) -> Statistic:
    """Mean absolute error of the starts, in milliseconds."""
    return times.mean(np.abs(times.start), milliseconds)


def onset_mae(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> float:
    """`onset_error` of the utterances with timed references and timed hypotheses; NaN where there are none."""
    words = spoken_words(hypotheses)
    timed = [example for example in examples if example.words and words.get(example.id)]
    return onset_error(timing(timed, [words[example.id] for example in timed])).value


def spoken_words(hypotheses: Sequence[Hypothesis]) -> dict[str, tuple[SpokenWord, ...]]:
    """Words of the transcripts that have some, by utterance."""
    return {one.id: one.words for one in hypotheses if one.task == TRANSCRIBE and one.words}


@dataclass(frozen=True)
class Draws:
    """The bootstrap of one section: over ``units_of`` its utterances."""

    units: Units
    resamples: int
    seed: int

    @classmethod
    def over(cls, examples: Sequence[Example], resamples: int, seed: int) -> Draws:
        return cls(units_of(examples), resamples, seed)

    def interval(self, statistic: Statistic) -> dict[str, Any]:
        return interval(statistic, self.units, resamples=self.resamples, seed=self.seed).to_json()

    def median(self, values: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        return median_interval(values, rows, self.units, resamples=self.resamples, seed=self.seed).to_json()


def score_times(times: Timing, draws: Draws) -> dict[str, Any]:
    """Every figure with its 95 % interval: milliseconds for errors, percent for shares, F1 and IoU."""
    backwards, recognised = int(times.backwards.sum()), int(times.hypotheses.sum())
    found = np.bincount(times.row, minlength=len(times.references))
    return {
        "utterances": len(times.references),
        "reference_words": int(times.references.sum()),
        "said_words": recognised,
        "matched_words": len(times.row),
        "matched": draws.interval(Statistic(np.stack([found, times.references], axis=1), percent)),
        "start": _side(times, "start", draws),
        "end": _side(times, "end", draws),
        "f1": {str(bound): draws.interval(_f1(times, bound)) for bound in TOLERANCES},
        "iou": draws.interval(times.mean(times.iou, _percent_of_millionths)),
        "not_monotone": {"count": backwards, "of": recognised},
    }


def _side(times: Timing, name: str, draws: Draws) -> dict[str, Any]:
    signed = times.side(name)
    return {
        "mean_absolute_error": draws.interval(times.mean(np.abs(signed), milliseconds)),
        "median_absolute_error": draws.median(np.abs(signed) / 1000, times.row),
        "bias": draws.interval(times.mean(signed, milliseconds)),
        "within": {
            str(bound): draws.interval(times.mean(times.within(bound, name).astype(np.int64), percent))
            for bound in TOLERANCES
        },
    }


def _f1(times: Timing, tolerance: int) -> Statistic:
    """F1 over all words of hypotheses and references. A word is right if it is matched and its start and end are both
    within the tolerance (milliseconds)."""
    right = times.sums(times.within(tolerance, "start", "end"))[:, 0]
    counts = np.stack([2 * right, times.references + times.hypotheses], axis=1)
    return Statistic(counts, percent)


def _percent_of_millionths(counts: Sequence[int]) -> float:
    return percent((counts[0], _MICRO * counts[1]))


def error_ratio(worse: Timing, better: Timing, draws: Draws) -> dict[str, Any]:
    """Mean onset error of ``worse`` over that of ``better``, the same utterances drawn for both."""
    matrix = np.concatenate([onset_error(worse).matrix, onset_error(better).matrix], axis=1)
    return draws.interval(Statistic(matrix, _ratio))


def _ratio(counts: Sequence[int]) -> float:
    over, under = milliseconds(counts[:2]), milliseconds(counts[2:])
    return over / under if under else math.nan
