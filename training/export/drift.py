"""The check of fp16 and int8: how much worse the scores are, by paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, Example
from training.decoding.predict import in_languages
from training.evaluation.intervals import Difference, paired, units_of
from training.evaluation.metrics import NAMES, task_statistics
from training.evaluation.rows import Row, make_row, text_language
from training.export.decoded import Utterances
from training.export.verdict import FAILED, PASSED, UNDECIDED, Finding
from training.models.architecture import Decoded

MAX_DRIFT = {"fp16": 0.5, "int8": 1.0}
"""Points by which the scores may be worse, by precision."""
KOREAN = "ko"
LEAST = {"wer": 90.0, "cer": 90.0, "bleu": 2.0}
"""An original that is worse recognises next to nothing: there is nothing to lose, and nothing can be told."""


def check_drift(
    task: str,
    pairs: Sequence[tuple[Mapping[str, Decoded], Mapping[str, Decoded]]],
    languages: tuple[str, str],
    utterances: Utterances,
    most: float,
) -> Finding:
    """Compare the scores of one task.

    Args:
        task: the task.
        pairs: of each utterance what the original and the exported model make of it.
        languages: of the model, for utterances that name none.
        utterances: with references.
        most: points by which the exported model may be worse.

    Raises:
        UserError: no utterance has a reference for the task.
    """
    examples = [in_languages(utterances.rows[row], languages) for row in range(len(utterances))]
    scored = [row for row, example in enumerate(examples) if task in example.texts]
    if not scored:
        raise UserError(
            f"--check_manifest: no utterance has a reference for {task}; give some, or say --no_check"
        )
    sides = [[_row(examples[row], task, pairs[row][side][task].text) for row in scored] for side in (0, 1)]
    metric = _metric(task, examples[scored[0]])
    original, exported = (task_statistics(task, rows)[metric] for rows in sides)
    found = paired(exported, original, units_of([examples[row] for row in scored]))
    lower = task == TRANSCRIBE
    verdict, needed = judged(found, most, lower_is_better=lower)
    if verdict == PASSED and not useful(metric, found.b):
        verdict = UNDECIDED
    same = sum(a[task].ids == b[task].ids for a, b in pairs)
    figures: dict[str, Any] = {
        "utterances": len(pairs),
        "identical": same,
        "metric": metric,
        **found.to_json(),
        "max_drift": most,
        "utterances_needed": needed,
    }
    figures["original"], figures["exported"] = figures.pop("b"), figures.pop("a")
    return Finding(
        task, verdict, _line(task, metric, found, most, verdict, needed, same, len(pairs)), figures
    )


def useful(metric: str, score: float) -> bool:
    """Whether an original of this score has anything to lose."""
    return score >= LEAST[metric] if metric == "bleu" else score <= LEAST[metric]


def judged(found: Difference, most: float, *, lower_is_better: bool) -> tuple[str, int | None]:
    """The verdict on a difference (exported less original), and the units that would decide where it is open.

    The bound of the interval on the bad side must be within ``most``. The interval shrinks with the root of the units.
    """
    low, value, high = (
        (found.low, found.value, found.high) if lower_is_better else (-found.high, -found.value, -found.low)
    )
    if high <= most:
        return PASSED, None
    if low > most:
        return FAILED, None
    if math.isnan(value) or value >= most:
        return UNDECIDED, None
    return UNDECIDED, math.ceil(found.rows * ((high - value) / (most - value)) ** 2)


def _row(example: Example, task: str, hypothesis: str) -> Row:
    return make_row(example, task, example.texts[task], hypothesis)


def _metric(task: str, example: Example) -> str:
    if task != TRANSCRIBE:
        return "bleu"
    return "cer" if text_language(example, task) == KOREAN else "wer"


def _line(
    task: str,
    metric: str,
    found: Difference,
    most: float,
    verdict: str,
    needed: int | None,
    same: int,
    total: int,
) -> str:
    line = (
        f"{task}: {NAMES[metric]} {found.b:.2f} → {found.a:.2f}, difference {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}] "
        f"on {found.rows} utterances, {most:g} points may be lost: {verdict}; tokens of {same} of {total} identical"
    )
    if verdict != UNDECIDED:
        return line
    if not useful(metric, found.b):
        return f"{line}. The original itself gets next to nothing right, so that nothing can be told"
    if needed is None:
        return f"{line}. The interval is too wide to tell, and the difference itself is beyond the bound"
    return f"{line}. The interval is too wide to tell: about {needed:,} utterances are needed (--utterances {needed})"
