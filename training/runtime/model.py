"""What the exported models have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.models.architecture import SpeechModel
from training.models.export_parts import Description


@dataclass(frozen=True, kw_only=True)
class ExportedModel(SpeechModel):
    """A model that an engine without gradients computes. description: what its folder's record says."""

    description: Description

    @property
    def positions(self) -> int | None:
        return self.description.positions

    @property
    def parameters(self) -> int:
        return self.description.parameters

    def inference(self, model: Any = None) -> AbstractContextManager[None]:
        return nullcontext()


def rectangle(rows: Sequence[Sequence[int]], end: int) -> np.ndarray:
    """Ids int64 ``[rows, longest + 1]``; each row is filled up with ``end``, at least one of it."""
    filled = np.full((len(rows), max(map(len, rows)) + 1), end, dtype=np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled
