"""A run beside the weights that it started from: both scored on the same utterances, with the paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.data.example import TRANSCRIBE, Example, Hypothesis
from training.data.metric import CER, main_metric
from training.evaluation.compare import differences, domain_differences
from training.evaluation.intervals import interval, units_of
from training.evaluation.metrics import task_statistics
from training.evaluation.rows import Row, join

VERDICTS = {"A better": "worse", "B better": "better"}
"""Verdict of a comparison of the start (A) and the run (B) → of the run."""
BY_CHARACTERS = ("ja", "ko", "km", "lo", "my", "th", "yue", "zh")
"""Languages whose words are not, or not reliably, set apart: scored by characters."""


def beside_start(
    examples: Sequence[Example],
    start: Sequence[Hypothesis],
    own: Sequence[Hypothesis],
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of the start weights and what the run changed.

    Args:
        examples: the utterances.
        start: hypotheses of the start weights; utterances without one are left out on both sides.
        own: hypotheses of the run.
        resamples: of the paired bootstrap.
        seed: of the bootstrap.

    Returns:
        ``rows`` and ``languages`` by task, the main ``metric``, ``scores`` and ``own`` by metric with intervals, and ``differences`` by metric:
        run minus start with the paired interval and a ``verdict`` (better, worse, no difference shown); ``by_domain``: the same differences
        of each domain that the utterances name, under ``metrics``, and its ``rows`` by task.

    Raises:
        ValueError: no utterance has hypotheses of both.
    """
    both = {one.id for one in start} & {one.id for one in own}
    shared = [example for example in examples if example.id in both]
    rows = [join(shared, [one for one in side if one.id in both]) for side in (start, own)]
    tasks = [task for task in rows[0] if task in rows[1]]
    pairs = {task: (rows[0][task], rows[1][task]) for task in tasks}
    changed = differences(pairs, resamples, seed)
    by_domain = domain_differences(pairs, resamples, seed)
    for part in (changed, *(one["metrics"] for one in by_domain.values())):
        for found in part.values():
            found["verdict"] = VERDICTS.get(found["verdict"], found["verdict"])
    languages = {task: sorted({row.language for row in rows[0][task]}) for task in tasks}
    return {
        "rows": {task: len(rows[0][task]) for task in tasks},
        "languages": languages,
        "metric": _main(languages),
        "scores": _scores([rows[0][task] for task in tasks], tasks, resamples, seed),
        "own": _scores([rows[1][task] for task in tasks], tasks, resamples, seed),
        "differences": changed,
        "by_domain": by_domain,
    }


def _scores(
    parts: Sequence[Sequence[Row]], tasks: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    return {
        name: interval(
            statistic, units_of([row.example for row in rows]), resamples=resamples, seed=seed
        ).to_json()
        for task, rows in zip(tasks, parts, strict=True)
        for name, statistic in task_statistics(task, rows).items()
    }


def _main(languages: Mapping[str, Sequence[str]]) -> str:
    """WER, CER where the languages set no words apart, BLEU of translations alone."""
    spoken = languages.get(TRANSCRIBE)
    if spoken and all(language in BY_CHARACTERS for language in spoken):
        return CER.name
    return main_metric(TRANSCRIBE if spoken else next(iter(languages))).name
