"""The check of fp16 and int8: how much worse the scores are, by paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from training.data.example import TRANSCRIBE, Example
from training.data.metric import BLEU, CER, WER, Metric
from training.decoding.predict import in_languages
from training.evaluation.intervals import ENOUGH_UNITS, Difference, paired, units_of
from training.evaluation.metrics import task_statistics
from training.evaluation.rows import make_row, text_language
from training.export.decoded import Utterances
from training.export.verdict import Finding
from training.models.architecture import Decoded
from training.runtime.folder import FAILED, PASSED, UNDECIDED

MAX_DRIFT = {"fp16": 0.5, "int8": 1.0}
"""Points by which the scores may be worse, by precision."""
KOREAN = "ko"
LEAST = {WER.name: 90.0, CER.name: 90.0, BLEU.name: 2.0}
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
        utterances: of which at least one has a reference for the task.
        most: points by which the exported model may be worse.
    """
    examples = [in_languages(utterances.rows[row], languages) for row in range(len(utterances))]
    scored = [row for row, example in enumerate(examples) if task in example.texts]
    metric = metric_of(task, examples[scored[0]])
    statistics = [
        task_statistics(
            task,
            [make_row(examples[n], task, examples[n].texts[task], pairs[n][side][task].text) for n in scored],
        )[metric.name]
        for side in (0, 1)
    ]
    found = paired(statistics[1], statistics[0], units_of([examples[row] for row in scored]))
    verdict, needed = judged(found, most, metric)
    figures = found.to_json()
    figures["original"], figures["exported"] = figures.pop("b"), figures.pop("a")
    same = sum(a[task].text == b[task].text for a, b in pairs)
    figures |= {"metric": metric.name, "max_drift": most, "utterances_needed": needed}
    figures |= {"utterances": len(pairs), "identical": same}
    line = f"{task}: {_scores(found, metric, most)}: {verdict}; {same} of {len(pairs)} texts identical"
    return Finding(task, verdict, line + _why(verdict, found, metric, needed), figures)


def metric_of(task: str, example: Example) -> Metric:
    """WER of transcripts, CER of Korean ones; BLEU of translations."""
    if task != TRANSCRIBE:
        return BLEU
    return CER if text_language(example, task) == KOREAN else WER


def judged(found: Difference, most: float, metric: Metric) -> tuple[str, int | None]:
    """The verdict on a difference (exported less original), and the utterances that would decide where it is open.

    The bound of the interval on the bad side must be within ``most``. The interval shrinks with the root of the utterances.
    An interval over fewer than `ENOUGH_UNITS` says nothing, however narrow it is.
    """
    if found.units < ENOUGH_UNITS:
        return UNDECIDED, ENOUGH_UNITS
    low, value, high = (
        (-found.high, -found.value, -found.low)
        if metric.higher_is_better
        else (found.low, found.value, found.high)
    )
    if high <= most and useful(metric, found.b):
        return PASSED, None
    if low > most:
        return FAILED, None
    if math.isnan(value) or value >= most or high <= most:
        return UNDECIDED, None
    return UNDECIDED, math.ceil(found.rows * ((high - value) / (most - value)) ** 2)


def useful(metric: Metric, score: float) -> bool:
    """Whether an original of this score has anything to lose."""
    return score >= LEAST[metric.name] if metric.higher_is_better else score <= LEAST[metric.name]


def _scores(found: Difference, metric: Metric, most: float) -> str:
    return (
        f"{metric.label} {found.b:.2f} → {found.a:.2f}, difference {found.value:+.2f} [{found.low:+.2f}, "
        f"{found.high:+.2f}] on {found.rows} utterances, {most:g} points may be lost"
    )


def _why(verdict: str, found: Difference, metric: Metric, needed: int | None) -> str:
    if verdict != UNDECIDED:
        return ""
    if not useful(metric, found.b):
        return ". The original itself gets next to nothing right, so that nothing can be told"
    if found.units < ENOUGH_UNITS:
        return f". So few cannot tell: at least {ENOUGH_UNITS} utterances are needed"
    if needed is None:
        return ". The interval is too wide to tell, and the difference itself is beyond the bound"
    return (
        f". The interval is too wide to tell: about {needed:,} utterances are needed (--utterances {needed})"
    )
