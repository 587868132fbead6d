"""The check of fp32: the same tokens and the same text, utterance by utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.export.decoded import Utterances
from training.export.verdict import Finding
from training.models.architecture import Decoded, SpeechModel
from training.models.export_parts import ExportParts
from training.runtime.folder import FAILED, PASSED

CLOSE = 1e-3
"""Two logits of the original that are no further apart may swap places: the order of a sum decides between them."""
MOST_EXCEPTIONS = 0.01
"""Share of the utterances that may be exceptions."""


@dataclass(frozen=True)
class Different:
    """An utterance with other tokens.

    place: of the first difference. gap: between the original's logits of the two tokens there; None where unknown.
    """

    id: str
    task: str
    place: int
    original: str
    exported: str
    gap: float | None

    @property
    def excused(self) -> bool:
        return self.gap is not None and self.gap <= CLOSE

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "task": self.task,
            "first_difference": self.place,
            "logit_gap": self.gap,
            "original": self.original,
            "exported": self.exported,
        }


def check_identity(
    task: str,
    pairs: Sequence[tuple[Mapping[str, Decoded], Mapping[str, Decoded]]],
    original: SpeechModel,
    parts: ExportParts,
    utterances: Utterances,
) -> Finding:
    """Compare the tokens of one task, and what the tokenizers make of them.

    Args:
        task: the task.
        pairs: of each utterance what the original and the exported model make of it.
        original: the original.
        parts: with its logits.
        utterances: of the comparison.
    """
    different = [
        _different(task, row, a[task], b[task], original, parts, utterances)
        for row, (a, b) in enumerate(pairs)
        if a[task].ids != b[task].ids or a[task].text != b[task].text or _moved(a[task], b[task], original)
    ]
    excused = [one for one in different if one.excused]
    passed = len(excused) == len(different) and len(excused) <= MOST_EXCEPTIONS * len(pairs)
    same = len(pairs) - len(different)
    line = f"{task}: tokens of {same} of {len(pairs)} utterances identical"
    if different:
        line += f", {len(excused)} differ where two logits lie within {CLOSE:g}, {len(different) - len(excused)} otherwise"
    figures = {"utterances": len(pairs), "identical": same, "different": [one.to_json() for one in different]}
    return Finding(task, PASSED if passed else FAILED, line, figures)


def _moved(a: Decoded, b: Decoded, original: SpeechModel) -> bool:
    """Whether words of a CTC model moved by more than a frame."""
    if original.frames is None:
        return False
    step = original.frames.seconds_per_frame * 1.001
    return len(a.words) != len(b.words) or any(
        abs(one.start - other.start) > step or abs(one.end - other.end) > step
        for one, other in zip(a.words, b.words, strict=True)
    )


def _different(
    task: str,
    row: int,
    a: Decoded,
    b: Decoded,
    original: SpeechModel,
    parts: ExportParts,
    utterances: Utterances,
) -> Different:
    same = next(
        (n for n, (one, other) in enumerate(zip(a.ids, b.ids, strict=False)) if one != other),
        min(len(a.ids), len(b.ids)),
    )
    gap = None
    end = parts.description.end
    if parts.next_logits is not None and end is not None and a.ids != b.ids:
        rows = next(rows for rows in utterances.batches if row in rows)
        batch = utterances.batch(original, rows)
        if original.language_detection is not None:
            batch = original.language_detection.detect(original.model, batch, None).batch
        if original.domains is not None:
            batch = original.domains.predict(original.model, batch, None).batch
        logits = parts.next_logits(batch, rows.index(row), original.tasks.index(task), list(a.ids[:same]))
        one, other = (ids[same] if same < len(ids) else end for ids in (a.ids, b.ids))
        gap = abs(float(logits[one]) - float(logits[other]))
    return Different(utterances.rows[row].id, task, same, a.text, b.text, gap)
