"""Limits of the size of batches. Does not import torch, so that configurations load fast."""

from __future__ import annotations

from dataclasses import dataclass


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
