"""What a domain token does: how often the model predicts the right domain, and how scores change with other prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Example, Hypothesis
from training.data.metric import DOMAIN_METRIC, LABELS
from training.evaluation.intervals import interval, paired, units_of
from training.evaluation.metrics import domain_rows, transcript_statistics
from training.evaluation.rows import Row, join
from training.evaluation.statistic import Statistic, percent
from training.evaluation.summary import score_text, signed_text

OWN = "as_it_is"
PREDICTION_RULE = (
    "share of the utterances whose domain the model predicted right, of those that have one; 95 % bootstrap"
)
SWAP_RULE = (
    "the same utterances with other prompts: their own domain, another one (the next in the list), no domain token, the "
    "domain that the model predicts; difference: that prompt minus the own one, 95 % paired bootstrap"
)


def predicted_domains(
    examples: Sequence[Example], hypotheses: Sequence[Hypothesis], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Accuracy of the predicted domains (`PREDICTION_RULE`), in all and by domain, and the counts of confusions.

    Args:
        examples: utterances with their own domains.
        hypotheses: ``domain`` is the predicted one, None where the model was not asked.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        What ``heard_domains`` of the metrics file holds; None where no domain was predicted.
    """
    predicted = {one.id: one.domain for one in hypotheses if one.domain is not None}
    asked = [example for example in examples if example.domain and example.id in predicted]
    if not asked:
        return None
    groups = {name: [e for e in asked if e.domain == name] for name in sorted({str(e.domain) for e in asked})}
    return {
        "rule": PREDICTION_RULE,
        "accuracy": _accuracy(asked, predicted, resamples, seed),
        "by_domain": {name: _accuracy(found, predicted, resamples, seed) for name, found in groups.items()},
        "taken_for": {
            name: dict(Counter(str(predicted[e.id]) for e in found).most_common())
            for name, found in groups.items()
        },
    }


def _accuracy(
    examples: Sequence[Example], predicted: Mapping[str, str | None], resamples: int, seed: int
) -> dict[str, Any]:
    right = [[int(predicted[example.id] == example.domain), 1] for example in examples]
    statistic = Statistic(np.array(right, dtype=np.int64), percent)
    return interval(statistic, units_of(examples), resamples=resamples, seed=seed).to_json()


def swap_test(
    decoded: Mapping[str, tuple[Sequence[Example], Sequence[Hypothesis]]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Scores of the same utterances with several prompts, by domain (`SWAP_RULE`).

    Args:
        decoded: examples and hypotheses by prompt (`OWN` and others), the same utterances for each.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        What ``{run}_swap.json`` holds.
    """
    rows = {prompt: join(*found)[TRANSCRIBE] for prompt, found in decoded.items()}
    domains = domain_rows(rows[OWN])
    return {
        "rule": SWAP_RULE,
        "by_domain": {
            name: {
                "rows": len(places),
                "prompts": {
                    prompt: _against_own(
                        [found[i] for i in places], [rows[OWN][i] for i in places], resamples, seed
                    )
                    for prompt, found in rows.items()
                },
            }
            for name, places in domains.items()
        },
    }


def _against_own(found: Sequence[Row], own: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
    units = units_of([row.example for row in own])
    ours, theirs = transcript_statistics(own), transcript_statistics(found)
    scores = {}
    for name in theirs:
        score = interval(theirs[name], units, resamples=resamples, seed=seed).to_json()
        difference = paired(theirs[name], ours[name], units, resamples=resamples, seed=seed).to_json()
        scores[name] = {"score": score, "difference": difference}
    return scores


def table(swap: Mapping[str, Any], metric: str = DOMAIN_METRIC.name) -> str:
    """The swap test as lines for a terminal."""
    lines = [f"swap test, {LABELS[metric]}: {swap['rule']}"]
    for name, found in swap["by_domain"].items():
        for prompt, scores in found["prompts"].items():
            label = f"{name}, prompt {prompt}"
            line = f"{label:36} {score_text(scores[metric]['score'])}"
            if prompt != OWN:
                line += f"  difference {signed_text(scores[metric]['difference'])}"
            lines.append(line)
    return "\n".join(lines)
