"""Ends the generation of a text that has begun to repeat itself, long before the bound of its length."""

from __future__ import annotations

from typing import Any

import torch
from transformers import StoppingCriteria

PERIODS = 24
"""Tokens of the longest phrase that is looked for."""
RUNS, LEAST = 6, 32
"""A row is ended when a phrase has come so often in a row, and so many tokens have done nothing but repeat."""
EVERY = 8
"""Steps between two looks: one look costs a few hundredths of a step."""


class StopRepeats(StoppingCriteria):
    """Stops a row whose last tokens are one phrase over and over.

    Such a text fails by its repetition in any case (`training.decoding.repetition` calls far shorter runs a loop); without
    this the decoder would write it to the last position. ``stopped``: which rows were ended so far, bool ``[rows]``.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.stopped: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        written = input_ids[:, self.prompt :]
        stopped = torch.zeros(len(written), dtype=torch.bool, device=written.device)
        self.stopped = stopped if self.stopped is None else self.stopped
        if written.shape[1] % EVERY:
            return stopped
        for period in range(1, PERIODS + 1):
            length = max(LEAST, RUNS * period)
            if written.shape[1] >= length:
                last = written[:, -length:]
                stopped |= (last[:, period:] == last[:, :-period]).all(dim=1)
        self.stopped = self.stopped | stopped
        return stopped
