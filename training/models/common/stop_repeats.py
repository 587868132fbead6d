"""Ends the generation of a text that has begun to repeat itself, long before the bound of its length."""

from __future__ import annotations

from typing import Any

import torch
from transformers import StoppingCriteria

from training.models.common.repeated_tokens import repeats


class StopRepeats(StoppingCriteria):
    """Stops a row whose last tokens are one phrase over and over.

    Such a text fails by its repetition in any case (`training.decoding.repetition` calls far shorter runs a loop); without
    this the decoder would write it to the last position. ``stopped``: which rows were ended so far, bool ``[rows]``.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.stopped: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        stopped: torch.Tensor = repeats(input_ids[:, self.prompt :])
        self.stopped = stopped if self.stopped is None else self.stopped | stopped
        return stopped
