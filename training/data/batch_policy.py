"""Limits of the size of batches. Does not import torch, so that configurations load fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FULL_SECONDS = 30.0
"""Seconds of a whole context: Whisper's, the one model that has such."""
FULL_ROWS = 4
FULL_CONTEXT = "full_context"
"""Feature of utterances whose batch is padded to the whole context."""


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """Limits of the size of batches, built once from a configuration, and the same for training, planning and evaluation.

    max_seconds: audio of a training batch, None: no bound. batch_size: utterances of a training batch, None: no bound.
    full_share: share of the clips of training that are padded to the model's whole context, in batches of their own.
    eval_seconds, eval_batch_size: the same for evaluation.
    """

    max_seconds: float | None = None
    batch_size: int | None = None
    full_share: float = 0.0
    eval_seconds: float = 60.0
    eval_batch_size: int | None = None

    @property
    def full_rows(self) -> int:
        """Clips of a batch that is padded to the whole context: as many as ``max_seconds`` hold of that length, but at least
        `FULL_ROWS`, because a step on a single short clip teaches little; at most ``batch_size``."""
        limits = [] if self.max_seconds is None else [max(FULL_ROWS, int(self.max_seconds / FULL_SECONDS))]
        limits += [] if self.batch_size is None else [self.batch_size]
        return max(1, min(limits, default=FULL_ROWS))

    def bounds(self) -> dict[str, Any]:
        """The limits of a sampler of training (`training.data.sampler.DurationBatchSampler`)."""
        return {
            "max_seconds": self.max_seconds,
            "batch_size": self.batch_size,
            "full_share": self.full_share,
            "full_rows": self.full_rows,
        }


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
