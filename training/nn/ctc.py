"""Connectionist temporal classification on an encoder, as a second loss (Graves et al., 2006; Watanabe et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from training.data.collators import IGNORED


def frames_needed(targets: Sequence[int]) -> int:
    """Frames that the shortest alignment takes: one for each token, and a blank between equal neighbours."""
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def check_feasible(frames: int, targets: Sequence[int]) -> None:
    """Raise ``ValueError`` where no alignment exists: the loss would be infinite.

    To be called when the data is prepared: ``zero_infinity=True`` would hide such a sample in every epoch.
    """
    needed = frames_needed(targets)
    if frames < needed:
        raise ValueError(
            f"CTC cannot align {len(targets)} tokens (needs {needed} frames) with {frames} frames"
        )


def ctc_loss(
    logits: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor, *, blank: int
) -> torch.Tensor:
    """Sum over the batch of -log p(targets), in float32 whatever the autocast.

    logits ``[batch, frames, vocabulary]``, lengths ``[batch]`` (real frames), targets ``[batch, length]`` filled
    up with `IGNORED`. A row without targets has no transcript and adds nothing (it is not taught silence).
    An infeasible row makes the sum infinite: see `check_feasible`.
    """
    keep = targets != IGNORED
    rows = keep.any(dim=-1)
    if not rows.any():
        return logits.float().sum() * 0.0
    log_probs = logits[rows].float().log_softmax(dim=-1).transpose(0, 1)
    return F.ctc_loss(
        log_probs,
        targets[keep],
        lengths[rows].to(targets.dtype),
        keep[rows].sum(dim=-1),
        blank=blank,
        reduction="sum",
    )
