"""Translation of code-switched speech: all rows, the rows that change, and what copying would score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.codeswitch import words_replaced
from training.evaluation.intervals import interval, paired, units_of
from training.evaluation.metrics import translation_statistics
from training.evaluation.rows import Row, make_row
from training.evaluation.statistic import Statistic
from training.evaluation.stored import CHANGED

CHANGED_RULE = "rows whose reference translation differs from their reference transcript, both normalised"


def as_copy(row: Row, text: str) -> Row:
    """The translation row of a system that hands ``text`` on as its translation."""
    return make_row(row.example, TRANSLATE, row.raw_reference, text)


def changes(row: Row) -> bool:
    """Does the translation differ from the transcript? False where there is no transcript to compare with."""
    transcript = row.example.texts.get(TRANSCRIBE)
    return transcript is not None and as_copy(row, transcript).hypothesis != row.reference


def translation_section(
    rows: Sequence[Row], transcripts: Sequence[Row], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Scores on all, changed and unchanged rows, those of both copies, and the paired differences.

    ``transcripts`` are the transcription rows of the same run (empty where it did not transcribe; then the
    copy of its own transcript is absent).
    """
    systems = _systems([row for row in rows if TRANSCRIBE in row.example.texts], transcripts)
    ours = systems["ours"]
    groups = {
        "all": list(range(len(ours))),
        CHANGED: [index for index, row in enumerate(ours) if changes(row)],
        "unchanged": [index for index, row in enumerate(ours) if not changes(row)],
    }
    statistics = {name: translation_statistics(found) for name, found in systems.items()}
    section: dict[str, Any] = {
        "changed_rule": CHANGED_RULE,
        "rows": {name: len(indices) for name, indices in groups.items()},
        "rows_without_transcript": len(rows) - len(ours),
    }
    for name, indices in groups.items():
        section[name] = {
            system: _intervals([ours[i] for i in indices], found, indices, resamples, seed)
            for system, found in statistics.items()
        }
    section["paired_on_changed"] = _paired(ours, statistics, groups[CHANGED], resamples, seed)
    section["words_replaced"] = words_replaced(
        [(_transcript(ours[i]), ours[i]) for i in groups[CHANGED]], resamples=resamples, seed=seed
    )
    return section


def _systems(rows: Sequence[Row], transcripts: Sequence[Row]) -> dict[str, list[Row]]:
    systems = {
        "ours": list(rows),
        "copy_of_reference_transcript": [as_copy(row, row.example.texts[TRANSCRIBE]) for row in rows],
    }
    own = {row.example.id: row.raw_hypothesis for row in transcripts}
    if own:
        systems["copy_of_own_transcript"] = [as_copy(row, own[row.example.id]) for row in rows]
    return systems


def _transcript(row: Row) -> Row:
    return make_row(row.example, TRANSCRIBE, row.example.texts[TRANSCRIBE], "")


def _intervals(
    rows: Sequence[Row], statistics: dict[str, Statistic], indices: Sequence[int], resamples: int, seed: int
) -> dict[str, Any]:
    units = units_of([row.example for row in rows])
    return {
        metric: interval(statistic.subset(indices), units, resamples=resamples, seed=seed).to_json()
        for metric, statistic in statistics.items()
    }


def _paired(
    rows: Sequence[Row],
    statistics: dict[str, dict[str, Statistic]],
    indices: Sequence[int],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Ours minus each copy, on the changed rows: BLEU and chrF with paired intervals."""
    units = units_of([rows[index].example for index in indices])
    return {
        f"ours_minus_{name}": {
            metric: paired(
                statistics["ours"][metric].subset(indices),
                copied.subset(indices),
                units,
                resamples=resamples,
                seed=seed,
            ).to_json()
            for metric, copied in found.items()
        }
        for name, found in statistics.items()
        if name != "ours"
    }
