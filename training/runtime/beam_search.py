"""Beam search with numpy alone, for decoders that a graph computes step by step."""

from __future__ import annotations

import numpy as np

from training.models.safeguards import Search
from training.runtime.token_search import Rules, Steps, Written, log_softmax

NOTHING = np.float32(-1e9)
"""Score of a beam that is none."""


def beam_search(steps: Steps, prompts: np.ndarray, rules: Rules, search: Search) -> list[Written]:
    """The best text of each prompt, as transformers' beam search finds it with its default settings (length penalty 1).

    A text's score is the mean log-probability of its tokens, the end token included. A prompt is done when its best open beam
    is worse than the worst of its finished ones, or when the bound is reached.

    Args:
        steps: before its first ids.
        prompts: int64 ``[rows, length]``.
        rules: what may not be written. It does not change the probability of the other tokens.
        search: with ``beams`` and ``new``.
    """
    assert search.new is not None
    beams = _Beams(prompts, search.beams, search.new, rules.end)
    logits = np.repeat(steps(prompts), search.beams, axis=0)
    steps.keep(np.repeat(np.arange(len(prompts)), search.beams))
    while True:
        scores = log_softmax(logits)
        rules.apply(scores, beams.read, beams.length == 0)
        rows = beams.add(scores)
        if beams.done:
            return beams.best()
        steps.keep(rows)
        logits = steps(beams.read[:, -1:])


class _Beams:
    """The open and the finished beams of some prompts.

    ids: of the open beams, int64 ``[prompts, beams, prompt + new]``. finished: the same of the finished ones, and ``lengths``
    without their end, ``scores``, ``is_finished``, each ``[prompts, beams]``. length: ids so far without the prompt.
    """

    def __init__(self, prompts: np.ndarray, beams: int, new: int, end: int) -> None:
        count, self.start = prompts.shape
        self.beams, self.new, self.end, self.length = beams, new, end, 0
        self.ids = np.full((count, beams, self.start + new), end, dtype=np.int64)
        self.ids[:, :, : self.start] = prompts[:, None]
        self.sums = np.full((count, beams), NOTHING, dtype=np.float32)
        self.sums[:, 0] = 0.0  # all beams are the same at first: one of them counts
        self.finished = self.ids.copy()
        self.lengths = np.zeros((count, beams), dtype=np.int64)
        self.scores = np.full((count, beams), NOTHING, dtype=np.float32)
        self.is_finished = np.zeros((count, beams), dtype=bool)
        self.open = np.ones((count, 1), dtype=bool)
        self.done = False

    @property
    def read(self) -> np.ndarray:
        """The ids of all open beams so far, with the prompt: int64 ``[prompts × beams, length]``."""
        return self.ids[:, :, : self.start + self.length].reshape(-1, self.start + self.length)

    def add(self, scores: np.ndarray) -> np.ndarray:
        """One more id for each beam.

        Args:
            scores: log-probabilities ``[prompts × beams, vocabulary]``.

        Returns:
            For each beam the row that it goes on from, int64 ``[prompts × beams]``.
        """
        count, vocabulary = len(self.ids), scores.shape[-1]
        sums = (scores.reshape(count, self.beams, -1) + self.sums[:, :, None]).reshape(count, -1)
        best = _largest(sums, 2 * self.beams)
        values, owners, ids = np.take_along_axis(sums, best, axis=1), best // vocabulary, best % vocabulary
        candidates = np.take_along_axis(self.ids, owners[:, :, None], axis=1)
        candidates[:, :, self.start + self.length] = ids
        self.length += 1
        ends = (ids == self.end) | (self.length == self.new)
        self._finish(candidates, values, ids, ends)
        open_sums = values + np.where(ends, NOTHING, np.float32(0))
        chosen = _largest(open_sums, self.beams)
        self.ids = np.take_along_axis(candidates, chosen[:, :, None], axis=1)
        self.sums = np.take_along_axis(open_sums, chosen, axis=1)
        worst = np.where(self.is_finished, self.scores.min(axis=1, keepdims=True), NOTHING)
        self.open &= (self.sums[:, :1] / self.length > worst).any(axis=1, keepdims=True)
        self.done = bool(ends.all()) or not self.open.any()
        rows = np.take_along_axis(owners, chosen, axis=1) + self.beams * np.arange(count)[:, None]
        return rows.flatten()

    def _finish(self, candidates: np.ndarray, sums: np.ndarray, ids: np.ndarray, ends: np.ndarray) -> None:
        """Take those of the best ``beams`` candidates that end among the finished ones."""
        ends = ends & (np.arange(2 * self.beams) < self.beams)
        scores: np.ndarray = sums / np.float32(self.length)
        scores = scores + np.where(self.open, np.float32(0), NOTHING) + np.where(ends, np.float32(0), NOTHING)
        every: np.ndarray = np.concatenate((self.scores, scores), axis=1)
        lengths = np.concatenate((self.lengths, self.length - (ids == self.end)), axis=1)
        best = _largest(every, self.beams)
        self.scores = np.take_along_axis(every, best, axis=1)
        self.lengths = np.take_along_axis(lengths, best, axis=1)
        merged = np.concatenate((self.finished, candidates), axis=1)
        self.finished = np.take_along_axis(merged, best[:, :, None], axis=1)
        is_finished = np.concatenate((self.is_finished, ends), axis=1)
        self.is_finished = np.take_along_axis(is_finished, best, axis=1)

    def best(self) -> list[Written]:
        """The best finished beam of each prompt."""
        return [
            Written(row[0, self.start : self.start + length].tolist(), score)
            for row, length, score in zip(
                self.finished, self.lengths[:, 0].tolist(), self.scores[:, 0].tolist(), strict=True
            )
        ]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values of each row, the largest first, int64 ``[rows, count]``."""
    if values.shape[1] > count:
        some = np.argpartition(-values, count - 1, axis=1)[:, :count]
    else:
        some = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
