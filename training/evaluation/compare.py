"""Two runs on the same utterances: who is better, by how much, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data.example import TASKS, TRANSCRIBE, AudioRef, Example
from training.errors import UserError
from training.evaluation.intervals import Difference, paired, units_of
from training.evaluation.metrics import Statistic, transcript_statistics, translation_statistics
from training.evaluation.rows import Row, make_row
from training.evaluation.stored import find_predictions, read_predictions

LOWER_IS_BETTER = ("wer", "cer")
_NAMES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF"}
_RULE = (
    "B minus A in percent points, 95 % paired bootstrap: both runs on the same draws; better or worse only where "
    "the interval leaves zero out"
)


def compare(a: Path | str, b: Path | str, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Paired comparison of two predictions tables (or the run folders that they belong to).

    Texts are normalised anew, the same way for both. Raises `UserError` when the two do not hold the same
    utterances with the same references.
    """
    paths = [find_predictions(Path(a)), find_predictions(Path(b))]
    tables = [_by_task(path) for path in paths]
    tasks = [task for task in TASKS if task in tables[0] and task in tables[1]]
    if not tasks:
        raise UserError(f"{paths[0]} and {paths[1]} have no task in common")
    for task in tasks:
        _require_same(paths, task, tables[0][task], tables[1][task])
    metrics = {
        metric: _verdict(metric, found)
        for task in tasks
        for metric, found in _differences(tables[0][task], tables[1][task], resamples, seed).items()
    }
    skipped = sorted({task for table in tables for task in table} - set(tasks))
    return {
        "a": str(paths[0]),
        "b": str(paths[1]),
        "rule": _RULE,
        "resamples": resamples,
        "seed": seed,
        "rows": {task: len(tables[0][task]) for task in tasks},
        "tasks_of_only_one": skipped,
        "metrics": metrics,
    }


def _by_task(path: Path) -> dict[str, dict[str, Row]]:
    tables: dict[str, dict[str, Row]] = {}
    for number, line in enumerate(read_predictions(path), start=2):
        if line["task"] not in TASKS:
            raise UserError(f"{path}: record {number}: task {line['task']!r} is none of {', '.join(TASKS)}")
        rows = tables.setdefault(line["task"], {})
        if line["id"] in rows:
            raise UserError(f"{path}: record {number}: {line['id']} ({line['task']}) comes twice")
        rows[line["id"]] = _row(line)
    return tables


def _row(line: dict[str, str]) -> Row:
    example = Example(
        id=line["id"],
        audio=AudioRef(path=line.get("audio_path") or ""),
        duration=0.0,
        texts={line["task"]: line["reference"]},
        language=line["language"],
        speaker=line.get("speaker") or None,
        group=line.get("group") or None,
    )
    return make_row(example, line["task"], line["reference"], line["hypothesis"])


def _require_same(paths: Sequence[Path], task: str, a: dict[str, Row], b: dict[str, Row]) -> None:
    _require_contained(paths[0], paths[1], task, a, b)
    _require_contained(paths[1], paths[0], task, b, a)
    differing = [name for name in a if a[name].raw_reference != b[name].raw_reference]
    if differing:
        raise UserError(
            f"{len(differing)} utterances ({task}) have different references in {paths[0]} and {paths[1]}, first "
            f"{differing[0]}: {a[differing[0]].raw_reference!r} and {b[differing[0]].raw_reference!r}"
        )


def _require_contained(
    path: Path, other: Path, task: str, here: dict[str, Row], there: dict[str, Row]
) -> None:
    missing = [name for name in here if name not in there]
    if missing:
        raise UserError(
            f"{len(missing)} utterances of {path} ({task}) are not in {other}, first {missing[0]}; "
            "evaluate both runs on the same test file"
        )


def _differences(a: dict[str, Row], b: dict[str, Row], resamples: int, seed: int) -> dict[str, Difference]:
    left = list(a.values())
    right = [b[name] for name in a]
    units = units_of([row.example for row in left])
    statistics = [_statistics(rows) for rows in (left, right)]
    return {
        metric: paired(statistics[1][metric], statistics[0][metric], units, resamples=resamples, seed=seed)
        for metric in statistics[0]
    }


def _statistics(rows: Sequence[Row]) -> dict[str, Statistic]:
    return transcript_statistics(rows) if rows[0].task == TRANSCRIBE else translation_statistics(rows)


def _verdict(metric: str, found: Difference) -> dict[str, Any]:
    """``found`` is B − A; what is better depends on the metric."""
    entry = found.to_json()
    better_up = metric not in LOWER_IS_BETTER
    certain = found.low > 0 or found.high < 0
    return {
        "a": entry["b"],
        "b": entry["a"],
        "difference": entry["value"],
        **{key: entry[key] for key in ("low", "high", "unit", "units", "rows")},
        "share_of_resamples_b_higher": entry["above_zero"],
        "verdict": "no difference shown"
        if not certain
        else "B better"
        if (found.low > 0) == better_up
        else "A better",
    }


def table(comparison: dict[str, Any]) -> str:
    """The comparison as a table for a terminal."""
    lines = [f"A {comparison['a']}", f"B {comparison['b']}", ""]
    lines.append(f"{'':5} {'A':>7} {'B':>7} {'B − A':>7}  {'95 % interval':<18} verdict")
    for metric, found in comparison["metrics"].items():
        if found["difference"] is None:
            lines.append(f"{_NAMES[metric]:5} undefined (no reference words)")
            continue
        bounds = f"[{found['low']:+.2f}, {found['high']:+.2f}]"
        lines.append(
            f"{_NAMES[metric]:5} {found['a']:7.2f} {found['b']:7.2f} {found['difference']:+7.2f}  {bounds:<18} "
            f"{found['verdict']}"
        )
    first = next(iter(comparison["metrics"].values()))
    lines += [
        "",
        f"{first['rows']} rows, {first['units']} units drawn ({first['unit']}); {comparison['rule']}",
    ]
    return "\n".join(lines)
