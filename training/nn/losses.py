"""Losses over large vocabularies, and CTC on an encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from training.data.collators import IGNORED


def token_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Sum of the cross entropies of ``hidden @ weight.T + bias`` against ``labels``.

    hidden ``[..., width]``, weight ``[vocabulary, width]``, labels ``[...]`` with `IGNORED` where nothing is
    supervised. Returns a float32 scalar (0 with a gradient when nothing is supervised).
    """
    keep = labels.reshape(-1) != IGNORED
    logits = F.linear(hidden.reshape(-1, hidden.shape[-1])[keep], weight, bias).float()
    return F.cross_entropy(logits, labels.reshape(-1)[keep], reduction="sum", label_smoothing=smoothing)
