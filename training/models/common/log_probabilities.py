"""Mean log-probability of generated texts, collected while transformers generates them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import LogitsProcessor


class LogProbabilities(LogitsProcessor):
    """Adds up the log-probabilities of the tokens that are chosen, for one beam; changes no score.

    Only the scores of the last step are kept: those of all steps (``output_scores``) take gigabytes for long texts. The
    processors of transformers that suppress tokens come before it, the temperature after it: what counts is the
    probability at temperature 1 among the tokens that are allowed, as in Whisper.

    end: the token that ends a text. criteria: those that end rows before it; ``stopped`` tells which rows, bool ``[rows]``
    or None.
    """

    def __init__(self, end: int, criteria: Iterable[Any] = ()) -> None:
        self.end, self.criteria = end, list(criteria)
        self.last: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.last is None:
            self.sums = torch.zeros(len(scores), device=scores.device)
            self.counts = torch.zeros_like(self.sums)
            self.ended = torch.zeros_like(self.sums, dtype=torch.bool)
        else:
            self._add(input_ids[:, -1])
        self.last = scores.float()
        return scores

    def means(self, sequences: torch.Tensor) -> torch.Tensor:
        """Float ``[rows]``: the mean of each of the finished ``sequences [rows, length]``, end token included."""
        if self.last is None:
            return torch.zeros(len(sequences), device=sequences.device)
        self._add(sequences[:, -1])
        return self.sums / self.counts.clamp(min=1)

    def _add(self, chosen: torch.Tensor) -> None:
        assert self.last is not None
        found = self.last.gather(1, chosen[:, None])[:, 0] - self.last.logsumexp(dim=-1)
        going = ~self.ended  # a row that has ended is filled up with tokens that nobody chose
        self.sums += torch.where(going, found, 0.0)
        self.counts += going
        self.ended |= chosen == self.end
        for one in self.criteria:
            if one.stopped is not None:
                self.ended |= one.stopped
