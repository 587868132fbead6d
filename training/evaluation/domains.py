"""What a domain token does: how often the model hears the right domain, and what becomes of it with another prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Example, Hypothesis
from training.evaluation.intervals import interval, paired, units_of
from training.evaluation.metrics import NAMES, domain_rows, transcript_statistics
from training.evaluation.rows import Row, join
from training.evaluation.statistic import Statistic, percent
from training.evaluation.summary import score_text, signed_text

OWN = "as_it_is"
HEARD_RULE = (
    "share of the utterances whose domain the model named itself, of those that have one; 95 % bootstrap"
)
SWAP_RULE = (
    "the same utterances with other prompts: their own domain, another one (the next in the list), no domain token, the "
    "domain that the model hears; difference: that prompt minus the own one, 95 % paired bootstrap"
)


def heard(
    examples: Sequence[Example], hypotheses: Sequence[Hypothesis], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """`HEARD_RULE`, in all and by domain, and which was taken for which; None where the model was not asked."""
    said = {one.id: one.domain for one in hypotheses if one.domain is not None}
    asked = [example for example in examples if example.domain and example.id in said]
    if not asked:
        return None
    groups = {name: [e for e in asked if e.domain == name] for name in sorted({str(e.domain) for e in asked})}
    return {
        "rule": HEARD_RULE,
        "accuracy": _accuracy(asked, said, resamples, seed),
        "by_domain": {name: _accuracy(found, said, resamples, seed) for name, found in groups.items()},
        "taken_for": {
            name: dict(Counter(str(said[e.id]) for e in found).most_common())
            for name, found in groups.items()
        },
    }


def _accuracy(
    examples: Sequence[Example], said: Mapping[str, str | None], resamples: int, seed: int
) -> dict[str, Any]:
    right = [[int(said[example.id] == example.domain), 1] for example in examples]
    statistic = Statistic(np.array(right, dtype=np.int64), percent)
    return interval(statistic, units_of(examples), resamples=resamples, seed=seed).to_json()


def swap_test(
    said: Mapping[str, tuple[Sequence[Example], Sequence[Hypothesis]]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """`SWAP_RULE`. ``said``: examples and hypotheses by prompt (`OWN` and others), the same utterances for each."""
    rows = {prompt: join(*found)[TRANSCRIBE] for prompt, found in said.items()}
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


def table(swap: Mapping[str, Any], metric: str = "cer") -> str:
    """The swap test as lines for a terminal."""
    lines = [f"swap test, {NAMES[metric]}: {swap['rule']}"]
    for name, found in swap["by_domain"].items():
        for prompt, scores in found["prompts"].items():
            told = f"{name}, prompt {prompt}"
            line = f"{told:36} {score_text(scores[metric]['score'])}"
            if prompt != OWN:
                line += f"  difference {signed_text(scores[metric]['difference'])}"
            lines.append(line)
    return "\n".join(lines)
