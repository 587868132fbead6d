"""Connectionist temporal classification on an encoder, as a second loss (Graves et al., 2006; Watanabe et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.data.example import TRANSCRIBE
from training.data.spelling import frames_needed
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.targets import IGNORED


def head_characters(
    weight: float,
    saved: Mapping[str, Any] | None,
    texts: Callable[[], Iterable[tuple[str, str | None, str]]] | None,
) -> str:
    """The characters of a run's CTC head: those that the checkpoint was trained with, else the training texts'.

    Empty where no CTC loss is asked for (``weight`` 0). ``texts`` gives ``(task, language, text)``.
    """
    if not weight:
        return ""
    if saved and saved.get("ctc_characters"):
        return str(saved["ctc_characters"])
    rows = texts() if texts is not None else ()
    return CtcCharacters.of(text for task, _, text in rows if task == TRANSCRIBE).characters


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
    logits: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor, *, blank: int = 0
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
