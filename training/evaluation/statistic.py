"""A corpus score as sums over utterances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistic:
    """A corpus score as sums: ``matrix`` is int64 ``[rows, counts]``, ``score`` takes the summed counts.

    ``score`` gives percent, NaN where it is undefined (no reference words).
    """

    matrix: np.ndarray
    score: Callable[[Sequence[int]], float]

    @property
    def value(self) -> float:
        return self.score(self.matrix.sum(axis=0).tolist())

    def subset(self, indices: Sequence[int]) -> Statistic:
        return Statistic(self.matrix[np.asarray(indices, dtype=np.int64)], self.score)


def percent(counts: Sequence[int]) -> float:
    """``100 × counts[0] / counts[1]``; NaN when there is nothing to divide by."""
    return 100.0 * counts[0] / counts[1] if counts[1] else math.nan
