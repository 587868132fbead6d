"""Which utterances the report shows and plays: the best, the median, the worst, and those whose translation changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.stored import Result
from training.evaluation.word_alignment import align_words

WORST = 10
"""The worst utterances that are shown; the metrics file lists more."""
EQUAL, SUBSTITUTED, DELETED, INSERTED = "equal", "substituted", "deleted", "inserted"
Piece = tuple[str, str, str]
"""(kind, words of the reference, words of the hypothesis)."""


@dataclass(frozen=True)
class AlignedHypothesis:
    """The hypothesis of one run for one task, aligned with the reference (both normalised)."""

    run: str
    task: str
    hypothesis: str
    pieces: list[Piece]
    errors: int


@dataclass(frozen=True)
class SelectedRow:
    """One utterance of the report, and why it is there."""

    id: str
    why: str
    references: dict[str, str]
    speaker: str = ""
    hypotheses: list[AlignedHypothesis] = field(default_factory=list)


def diff(reference: str, hypothesis: str) -> list[Piece]:
    """Normalised texts as runs of equal, substituted, deleted and inserted words."""
    kinds = {"equal": EQUAL, "substitute": SUBSTITUTED, "delete": DELETED, "insert": INSERTED}
    aligned = align_words([reference], [hypothesis])
    reference_words, hypothesis_words = aligned.references[0], aligned.hypotheses[0]
    return [
        (
            kinds[chunk.type],
            " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in aligned.chunks[0]
    ]


def select_rows(results: Sequence[Result]) -> list[SelectedRow]:
    """At most sixteen utterances of the first run that has predictions, with the hypotheses of every run.

    Ranked by that run's word errors per reference word (all tasks together), ties by id.
    """
    tables = {result.run: _by_id(result.predictions()) for result in results}
    leader = next((run for run in tables if tables[run]), None)
    if leader is None:
        return []
    ranked = sorted(tables[leader], key=lambda name: _badness(tables[leader][name].values(), name))
    reasons = _reasons(ranked, tables[leader])
    return [_row(name, why, tables, leader) for name, why in reasons.items()]


def _by_id(rows: Iterable[dict[str, str]]) -> dict[str, dict[str, dict[str, str]]]:
    table: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        table.setdefault(row["id"], {})[row["task"]] = row
    return table


def _number(row: dict[str, str], name: str) -> int:
    text = row.get(name) or "0"
    return int(text) if text.lstrip("-").isdigit() else 0


def _errors(row: dict[str, str]) -> int:
    return sum(_number(row, name) for name in ("substitutions", "deletions", "insertions"))


def _badness(rows: Iterable[dict[str, str]], name: str) -> tuple[float, int, str]:
    found = list(rows)
    return _rate(found), sum(map(_errors, found)), name


def _rate(rows: Iterable[dict[str, str]]) -> float:
    found = list(rows)
    return sum(map(_errors, found)) / max(sum(_number(row, "words") for row in found), 1)


def _reasons(ranked: Sequence[str], table: dict[str, dict[str, dict[str, str]]]) -> dict[str, str]:
    """Utterance → why it is shown; the first reason stays."""
    changed = [name for name in ranked if _number(table[name].get(TRANSLATE, {}), "changed")]
    middle = len(ranked) // 2
    wanted = [
        *((name, "translation changes; best") for name in changed[:2]),
        *((name, "translation changes; worst") for name in changed[-1:]),
        *((name, "best") for name in ranked[:1]),
        *((name, "median") for name in ranked[middle : middle + 2]),
        *((name, "worst") for name in reversed(ranked[-WORST:])),
    ]
    reasons: dict[str, str] = {}
    for name, why in wanted:
        reasons.setdefault(name, why)
    return reasons


def _row(
    name: str, why: str, tables: dict[str, dict[str, dict[str, dict[str, str]]]], leader: str
) -> SelectedRow:
    rows = tables[leader][name]
    hypotheses = [
        _aligned(run, task, table[name][task])
        for task in (TRANSCRIBE, TRANSLATE)
        for run, table in tables.items()
        # Another test set can have another utterance with the same id.
        if task in table.get(name, {}) and _same(table[name][task], rows.get(task))
    ]
    speaker = next(iter(rows.values())).get("speaker", "")
    return SelectedRow(name, why, {task: row["reference"] for task, row in rows.items()}, speaker, hypotheses)


def _same(row: dict[str, str], leading: dict[str, str] | None) -> bool:
    return leading is None or row["reference"] == leading["reference"]


def _aligned(run: str, task: str, row: dict[str, str]) -> AlignedHypothesis:
    reference = row.get("normalised_reference") or row["reference"]
    pieces = diff(reference, row.get("normalised_hypothesis", row["hypothesis"]))
    return AlignedHypothesis(run, task, row["hypothesis"], pieces, _errors(row))
