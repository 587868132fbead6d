"""Scores without intervals, for evaluation during training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from training.data.example import Example, Hypothesis
from training.data.metric import ONSET_MAE
from training.evaluation.metrics import domain_rows, task_statistics
from training.evaluation.rows import join
from training.evaluation.word_times import onset_mae


def corpus_scores(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> dict[str, float]:
    """Quick scores for evaluation during training: ``wer``, ``cer``, ``bleu``, ``chrf`` in percent, and each of them
    of every domain: ``cer_child`` where rows have the domain ``child``. ``onset_mae``, milliseconds by which the starts of
    words are wrong, where references and hypotheses have times.

    Normalised, without intervals. Only the tasks that have hypotheses appear, and only scores that are
    defined. Raises ``ValueError`` when an example lacks its hypothesis (matched by id and task).
    """
    scores: dict[str, float] = {}
    for task, rows in join(examples, hypotheses).items():
        statistics = task_statistics(task, rows)
        for domain, indices in domain_rows(rows).items():
            parts = {name: statistic.subset(indices).value for name, statistic in statistics.items()}
            scores |= {f"{name}_{domain}": value for name, value in parts.items()}
        # These come last: the score of all rows is what it is called, whatever the domains are called.
        scores |= {name: statistic.value for name, statistic in statistics.items()}
    scores[ONSET_MAE.name] = onset_mae(examples, hypotheses)
    return {name: value for name, value in scores.items() if not math.isnan(value)}


def given_scores(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> dict[str, float]:
    """Quick scores for evaluation during training where the hypotheses are the references themselves: ``onset_mae`` alone,
    where it is defined. Error rates of such texts would be 0 and mean nothing."""
    error = onset_mae(examples, hypotheses)
    return {} if math.isnan(error) else {ONSET_MAE.name: error}
