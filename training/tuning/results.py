"""What a study leaves behind: ``trials.tsv``, ``best.yaml`` and a summary."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from training.config.merge import merge
from training.config.source import BASE_KEY, read_override
from training.tuning.space import overrides
from training.tuning.study import COMPLETE, OUTCOME, REASON, SECONDS, Setup, best_trial, finished, outcome

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TABLE, BEST = "trials.tsv", "best.yaml"
SHOWN = 5


def write_table(study: optuna.Study, setup: Setup) -> Path:
    """A line for each trial that has ended, also for those that were made again."""
    rows = [row(one, setup) for one in study.get_trials(deepcopy=False) if one.state.is_finished()]
    target = setup.folder / TABLE
    partial = target.with_name(f"{TABLE}.part")
    with partial.open("w", encoding="utf8", newline="") as file:
        columns = [
            *("trial", OUTCOME, setup.metric, "evaluations", SECONDS),
            *(one.key for one in setup.dimensions),
            REASON,
        ]
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(target)
    return target


def row(trial: FrozenTrial, setup: Setup) -> dict[str, Any]:
    """The trial's line of the table. A trial that is not complete has the last score that it came to."""
    scores = trial.intermediate_values
    reached = scores[max(scores)] if scores else None
    value = trial.value if trial.state.name == "COMPLETE" else reached
    return {
        "trial": trial.number,
        OUTCOME: outcome(trial),
        setup.metric: "" if value is None else value,
        "evaluations": len(scores),
        SECONDS: trial.user_attrs.get(SECONDS, ""),
        **trial.params,
        REASON: trial.user_attrs.get(REASON, ""),
    }


def write_best(study: optuna.Study, setup: Setup) -> Path | None:
    """The configuration with the best values, for ``train.py --config``; None while there is no complete trial."""
    best = best_trial(study)
    if best is None:
        return None
    target = setup.folder / BEST
    head = (
        f"# Trial {best.number} of {setup.folder.name}: {setup.metric} {best.value:.6g} on the dev split.\n"
    )
    text = head + yaml.safe_dump(best_values(best, setup), sort_keys=False, allow_unicode=True, width=110)
    partial = target.with_name(f"{BEST}.part")
    partial.write_text(text, encoding="utf8")
    partial.replace(target)
    return target


def best_values(best: FrozenTrial, setup: Setup) -> dict[str, Any]:
    """``_base_``, the overrides of the call, the best values, and a name and a folder of its own."""
    given = [*setup.overrides, *overrides(setup.dimensions, best.params)]
    values = merge([read_override(text) for text in given]).data
    output = setup.config.output
    values["output"] = {
        **values.get("output", {}),
        "dir": str(output.dir.with_name(f"{output.dir.name}_best")),
        "experiment_name": f"{output.experiment_name}_best",
    }
    return {BASE_KEY: relative(setup.path, setup.folder), **values}


def relative(path: Path, folder: Path) -> str:
    """The path as a file in the folder may write it."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def summary(study: optuna.Study, setup: Setup) -> list[str]:
    """Lines for the screen: how the trials ended, the best of them, and what to do with the result."""
    ended = finished(study)
    kinds = [outcome(one) for one in ended]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    lines = [f"{len(ended)} trials: {counts}" if ended else "no trial is finished"]
    complete = [one for one in ended if outcome(one) == COMPLETE]
    complete.sort(key=lambda one: one.value or 0.0, reverse=setup.greater_is_better)
    lines += _aligned([_cells(one, setup) for one in complete[:SHOWN]])
    if complete:
        lines += [
            f"best: trial {complete[0].number}, {setup.metric} {complete[0].value:.4f} on the dev split; all: {setup.folder / TABLE}",
            f"train with it: python training/scripts/train.py --config {setup.folder / BEST}",
        ]
    return lines


def _cells(trial: FrozenTrial, setup: Setup) -> list[str]:
    return [
        f"trial {trial.number}",
        f"{setup.metric} {trial.value:.4f}",
        *drawn(setup, trial.params),
    ]


def drawn(setup: Setup, params: dict[str, Any]) -> Iterable[str]:
    """``learning_rate 0.00123`` for each dimension."""
    for one in setup.dimensions:
        value = params[one.key]
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        yield f"{one.key.rpartition('.')[2]} {shown}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(one, widths, strict=True)).rstrip()
        for one in rows
    ]
