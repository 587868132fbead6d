"""What the exported models have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

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
