"""The score that checkpoints are chosen by: whether the dev rows have it, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from training.base.errors import UserError
from training.data.checks import Rows
from training.data.example import TASKS, Hypothesis
from training.data.metric import LOGGED, LOSS, ONSET_MAE, of_task
from training.evaluation.quick_scores import corpus_scores

EVERYWHERE = frozenset({LOSS, *(one.name for task in TASKS for one in of_task(task))})
"""The metrics of every evaluation, for the run's tasks."""


def check_metric(metric: str, dev: Rows, tasks: Sequence[str], *, timed: bool = False) -> None:
    """`UserError` where no evaluation on the ``dev`` rows gives ``metric``, such as the score of a domain
    that none of them has. ``timed``: whether the model tells times of words."""
    name = metric.removeprefix(LOGGED)
    if name in EVERYWHERE:
        return
    if name == ONSET_MAE.name:
        _check_onsets(metric, dev, timed)
        return
    rows = [dev[index] for index in range(len(dev))]
    # Their own references as hypotheses: the names are then those that the evaluation gives.
    perfect = [
        Hypothesis(id=row.id, task=task, text=row.texts[task])
        for row in rows
        for task in tasks
        if task in row.texts
    ]
    found = corpus_scores(rows, perfect)
    if name not in found:
        domains = sorted({row.domain for row in rows if row.domain})
        told = f"the domains {', '.join(domains)}" if domains else "no domains (the column domain)"
        raise UserError(
            f"training.metric_for_best_model: {metric} is no score of the dev split, whose rows have {told}; there are "
            f"eval_loss, {', '.join(f'eval_{score}' for score in found)}"
        )


def _check_onsets(metric: str, dev: Rows, timed: bool) -> None:
    if not timed:
        reason = "this model tells no times of words while it is trained"
    elif not any(dev[index].words for index in range(len(dev))):
        reason = "no row of the dev split has times of its words (the column words)"
    else:
        return
    raise UserError(f"training.metric_for_best_model: {metric} cannot be had: {reason}")
