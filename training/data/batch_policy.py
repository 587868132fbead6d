"""Limits of the size of batches. Does not import torch, so that configurations load fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """Limits of the size of batches, built once from a configuration, and the same for training, planning and evaluation.

    max_seconds: audio of a training batch, None: no bound. batch_size: utterances of a training batch, None: no bound.
    eval_seconds, eval_batch_size: the same for evaluation.
    """

    max_seconds: float | None = None
    batch_size: int | None = None
    eval_seconds: float = 60.0
    eval_batch_size: int | None = None


def longest_first(
    durations: Sequence[float] | np.ndarray, max_seconds: float, batch_size: int | None = None
) -> list[list[int]]:
    """Batches for evaluation: sorted by length, longest first (what does not fit shows at once)."""
    durations = np.asarray(durations, dtype=np.float64)
    batches: list[list[int]] = []
    remaining = 0
    for i in np.argsort(-durations, kind="stable").tolist():
        if remaining <= 0:
            batches.append([])
            remaining = max(1, min(int(max_seconds / max(durations[i], 1e-3)), batch_size or len(durations)))
        batches[-1].append(i)
        remaining -= 1
    return batches
