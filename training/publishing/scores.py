"""The scores of a run as Markdown tables: evaluations, swap tests, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.data.metric import DOMAIN_METRIC, LABELS
from training.evaluation.domains import OWN
from training.evaluation.summary import changed_text, paired_text, retained_text, score_text, signed_text

if TYPE_CHECKING:
    from training.publishing.evidence import Scored
    from training.publishing.facts import Facts

PROMPTS = {OWN: "its own", "swap": "another domain's", "none": "none", "auto": "the predicted one"}
"""Prompt of the swap test → description of its domain."""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A Markdown table; nothing where there are no rows."""
    lines = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    if lines:
        for line in (header, ["---"] * len(header), *lines):
            yield f"| {' | '.join(line)} |"


def scores(facts: Facts) -> Iterator[str]:
    """Every evaluation: scores in all and by domain, what the domain token does."""
    if not facts.evidence.scored:
        yield "Not evaluated: no scores were published with this model."
    for one in facts.evidence.scored:
        report = one.report
        yield from (f"### {one.name}", "")
        known = [name for name in LABELS if name in report["scores"]]
        groups = {"all": (max(report["rows"].values()), report["scores"])}
        groups |= {
            f"domain {name}": (part["rows"], part) for name, part in report.get("by_domain", {}).items()
        }
        lines = [
            (name, f"{rows:,}", *(score_text(scores.get(metric)) for metric in known))
            for name, (rows, scores) in (*_start(report), *groups.items())
        ]
        yield from table(("", "utterances", *(LABELS[metric] for metric in known)), lines)
        yield from ("", *_remarks(report))
        yield from _swap(one)
        yield ""


def _start(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, Mapping[str, Any]]]]:
    """The row of the weights that the run started from, where they were scored."""
    found = report.get("start") or {}
    if "scores" in found:
        name = f"before training: {found['name']}, {found['context']}"
        yield name, (max(found["rows"].values()), found["scores"])


def _remarks(report: Mapping[str, Any]) -> Iterator[str]:
    rules = {rule["name"] for found in report["normalisation"].values() for rule in found.values()}
    first = next(iter(report["scores"].values()))
    yield (
        f"In percent, with 95 % bootstrap intervals over {first['units']} units ({first['unit']}); texts normalised by "
        f"{', '.join(sorted(rules))}."
    )
    start = report.get("start") or {}
    if "differences" in start:
        told = ", ".join(f"{LABELS[name]} {paired_text(one)}" for name, one in start["differences"].items())
        yield f"Change by the training, 95 % paired intervals: {told}."
        for domain, part in start.get("by_domain", {}).items():
            told = ", ".join(f"{LABELS[name]} {changed_text(one)}" for name, one in part["metrics"].items())
            yield f"Change of domain {domain}: {told}."
    for found in report.get("retained") or []:
        yield f"Retained, {found['name']}: {retained_text(found)}."
    if prompt := report["meta"].get("domain"):
        yield f"Token in the prompt of all utterances: {PROMPTS.get(prompt, prompt)}."
    if predicted := report.get("heard_domains"):
        yield f"It predicts the domain correctly for {score_text(predicted['accuracy'], unit=' %')} of the utterances."
    if gap := report.get("domain_gap"):
        for name, found in gap["gaps"].items():
            told = ", ".join(f"{LABELS[key]} {score_text(score)}" for key, score in found.items())
            yield f"Gap, {name} − {gap['base']}: {told}."


def _swap(one: Scored, metric: str = DOMAIN_METRIC.name) -> Iterator[str]:
    if one.swap is None:
        return
    yield from ("", f"The same utterances with other prompts ({LABELS[metric]}; swap test):", "")
    lines = [
        (
            name,
            PROMPTS.get(prompt, prompt),
            score_text(found[metric]["score"]),
            _change(prompt, found[metric]),
        )
        for name, part in one.swap[1]["by_domain"].items()
        for prompt, found in part["prompts"].items()
    ]
    yield from table(("domain", "token in the prompt", LABELS[metric], "difference from its own"), lines)


def _change(prompt: str, found: Mapping[str, Any]) -> str:
    return "" if prompt == OWN else signed_text(found["difference"])


def comparisons(facts: Facts) -> Iterator[str]:
    """Every paired comparison with another model, and its verdict."""
    for _, found in facts.evidence.comparisons:
        yield f"`{found['b']}` (B, this model) against `{found['a']}` (A), the same utterances:"
        yield ""
        groups = {"all": found["metrics"]} | {
            f"domain {name}": part["metrics"] for name, part in found["by_domain"].items()
        }
        lines = [
            (
                group,
                LABELS[metric],
                f"{one['a']:.1f}",
                f"{one['b']:.1f}",
                signed_text(one, "difference"),
                one["verdict"],
            )
            for group, metrics in groups.items()
            for metric, one in metrics.items()
            if one["difference"] is not None
        ]
        yield from table(("", "score", "A", "B", "B − A", ""), lines)
        if verdict := found.get("verdict"):
            yield from ("", f"Verdict: {verdict['line']}.")
        yield ""
