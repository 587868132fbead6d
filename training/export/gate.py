"""Compares an exported model with its original: the same utterances, the same run, greedy, every task."""

from __future__ import annotations

from dataclasses import dataclass

from training.export.decoded import Utterances, decode_all
from training.export.drift import MAX_DRIFT, check_drift
from training.export.identity import check_identity
from training.export.verdict import Finding
from training.models.architecture import SpeechModel
from training.models.export_parts import ExportParts
from training.runtime.folder import FAILED
from training.runtime.whisper import CutShort


@dataclass(frozen=True)
class Gate:
    """How a comparison judges.

    utterances: that both models get. max_drift: points that may be lost; None: by precision, `MAX_DRIFT`.
    """

    utterances: Utterances
    max_drift: float | None = None

    def by_tokens(self, precision: str) -> bool:
        """Whether tokens are compared, not scores."""
        return precision == "fp32" and self.max_drift is None

    def most(self, precision: str) -> float:
        """Points that may be lost, where scores are compared."""
        return MAX_DRIFT.get(precision, 0.0) if self.max_drift is None else self.max_drift

    def rule(self, precision: str) -> str:
        """What decides, in words."""
        if self.by_tokens(precision):
            return "tokens and texts must be identical"
        return f"scores may be worse by {self.most(precision):g} points at most"

    def __call__(
        self, original: SpeechModel, exported: SpeechModel, parts: ExportParts, precision: str
    ) -> list[Finding]:
        """The finding of each task. fp32 is compared by tokens, the others by scores."""
        end = parts.description.end
        try:
            sides = [decode_all(model, self.utterances, end) for model in (original, exported)]
        except CutShort as error:
            return [
                Finding(task, FAILED, f"{task}: {error}", {"error": str(error)}) for task in original.tasks
            ]
        pairs = list(zip(*sides, strict=True))
        if self.by_tokens(precision):
            return [check_identity(task, pairs, original, parts, self.utterances) for task in original.tasks]
        most = self.most(precision)
        return [
            check_drift(task, pairs, original.languages, self.utterances, most) for task in original.tasks
        ]
