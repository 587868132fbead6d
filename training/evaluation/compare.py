"""Two runs on the same utterances: who is better, by how much, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.example import TASKS, AudioRef, Example
from training.data.metric import LABELS, METRICS
from training.evaluation.intervals import Difference, paired, units_of
from training.evaluation.metrics import domain_rows, task_statistics
from training.evaluation.rows import Row, make_row
from training.evaluation.stored import find_predictions, read_predictions

_RULE = (
    "B minus A in percent points, 95 % paired bootstrap: both runs on the same draws; better or worse only where "
    "the interval leaves zero out"
)
Pair = tuple[list[Row], list[Row]]
"""The same utterances in the same order: the rows of A, the rows of B."""


def compare(a: Path | str, b: Path | str, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Paired comparison of two predictions tables (or the run folders that they belong to).

    Texts are normalised anew, the same way for both. ``by_domain`` has the same figures of each domain that rows
    name. Raises `UserError` when the two do not hold the same utterances with the same references and domains.
    """
    paths = [find_predictions(Path(a)), find_predictions(Path(b))]
    tables = [_by_task(path) for path in paths]
    tasks = [task for task in TASKS if task in tables[0] and task in tables[1]]
    if not tasks:
        raise UserError(f"{paths[0]} and {paths[1]} have no task in common")
    for task in tasks:
        _require_same(paths, task, tables[0][task], tables[1][task])
    pairs = {task: _paired_rows(tables[0][task], tables[1][task]) for task in tasks}
    skipped = sorted({task for table in tables for task in table} - set(tasks))
    return {
        "a": str(paths[0]),
        "b": str(paths[1]),
        "rule": _RULE,
        "resamples": resamples,
        "seed": seed,
        "rows": {task: len(tables[0][task]) for task in tasks},
        "tasks_of_only_one": skipped,
        "metrics": differences(pairs, resamples, seed),
        "by_domain": domain_differences(pairs, resamples, seed),
    }


def domain_differences(pairs: Mapping[str, Pair], resamples: int, seed: int) -> dict[str, Any]:
    """Of each domain that rows name, the number of its ``rows`` by task and, under ``metrics``, the `differences` on them."""
    return {
        domain: {
            "rows": {task: len(left) for task, (left, _) in part.items()},
            "metrics": differences(part, resamples, seed),
        }
        for domain, part in _domains(pairs).items()
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
        domain=line.get("domain") or None,
    )
    return make_row(example, line["task"], line["reference"], line["hypothesis"])


def _require_same(paths: Sequence[Path], task: str, a: dict[str, Row], b: dict[str, Row]) -> None:
    _require_contained(paths[0], paths[1], task, a, b)
    _require_contained(paths[1], paths[0], task, b, a)
    _require_equal(
        paths, task, "references", [(name, a[name].raw_reference, b[name].raw_reference) for name in a]
    )
    domains = [(name, a[name].example.domain, b[name].example.domain) for name in a]
    # A table of before there was the column names no domain at all; then the other's are taken.
    if all(any(found) for found in zip(*(pair[1:] for pair in domains), strict=True)):
        _require_equal(paths, task, "domains", domains)


def _require_equal(
    paths: Sequence[Path], task: str, what: str, pairs: Sequence[tuple[str, str | None, str | None]]
) -> None:
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    if differing:
        name, left, right = differing[0]
        raise UserError(
            f"{len(differing)} utterances ({task}) have different {what} in {paths[0]} and {paths[1]}, first "
            f"{name}: {left!r} and {right!r}"
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


def _paired_rows(a: dict[str, Row], b: dict[str, Row]) -> Pair:
    """The rows of both runs in one order, each with its domain."""
    if not any(row.example.domain for row in a.values()):
        a = {
            name: replace(row, example=replace(row.example, domain=b[name].example.domain))
            for name, row in a.items()
        }
    return list(a.values()), [b[name] for name in a]


def _domains(pairs: Mapping[str, Pair]) -> dict[str, dict[str, Pair]]:
    """Domain → task → rows of both runs."""
    found: dict[str, dict[str, Pair]] = {}
    for task, (left, right) in pairs.items():
        for domain, indices in domain_rows(left).items():
            part = [left[i] for i in indices], [right[i] for i in indices]
            found.setdefault(domain, {})[task] = part
    return dict(sorted(found.items()))


def differences(pairs: Mapping[str, Pair], resamples: int, seed: int) -> dict[str, Any]:
    """By metric: both scores, B minus A with its paired interval, and the verdict. ``pairs``: task → the rows of both."""
    return {
        metric: _verdict(metric, found)
        for task, (left, right) in pairs.items()
        for metric, found in _differences(task, left, right, resamples, seed).items()
    }


def _differences(
    task: str, left: Sequence[Row], right: Sequence[Row], resamples: int, seed: int
) -> dict[str, Difference]:
    units = units_of([row.example for row in left])
    a, b = (task_statistics(task, rows) for rows in (left, right))
    return {metric: paired(b[metric], a[metric], units, resamples=resamples, seed=seed) for metric in a}


def _verdict(metric: str, found: Difference) -> dict[str, Any]:
    """``found`` is B − A; what is better depends on the metric."""
    entry = found.to_json()
    better_up = METRICS[metric].higher_is_better
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
    groups = {name: found["metrics"] for name, found in comparison["by_domain"].items()}
    blocks = [comparison["metrics"], *groups.values()]
    width = max(5, *(len(LABELS[metric]) for metrics in blocks for metric in metrics))
    lines = [f"A {comparison['a']}", f"B {comparison['b']}", ""]
    lines.append(f"{'':{width}} {'A':>7} {'B':>7} {'B − A':>7}  {'95 % interval':<18} verdict")
    lines += _lines(comparison["metrics"], width)
    for name, metrics in groups.items():
        first = next(iter(metrics.values()))
        lines += ["", f"domain {name}, {_drawn(first)}", *_lines(metrics, width)]
    first = next(iter(comparison["metrics"].values()))
    return "\n".join([*lines, "", f"{_drawn(first)}; {comparison['rule']}"])


def _lines(metrics: Mapping[str, Any], width: int) -> Iterator[str]:
    for metric, found in metrics.items():
        if found["difference"] is None:
            yield f"{LABELS[metric]:{width}} undefined (no reference words)"
            continue
        bounds = f"[{found['low']:+.2f}, {found['high']:+.2f}]"
        yield (
            f"{LABELS[metric]:{width}} {found['a']:7.2f} {found['b']:7.2f} {found['difference']:+7.2f}  {bounds:<18} "
            f"{found['verdict']}"
        )


def _drawn(found: Mapping[str, Any]) -> str:
    return f"{found['rows']} rows, {found['units']} units drawn ({found['unit']})"
