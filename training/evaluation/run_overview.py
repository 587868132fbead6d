"""The runs under a folder: what each is, how far it came, and how its evaluations ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from training.base.errors import UserError
from training.base.nearest import RUNS, path_hint
from training.base.system_files import listed
from training.data.metric import LABELS, METRICS
from training.evaluation.stored import Result, load_results

CONFIG, FINISHED, RESULTS = "config.yaml", "train_results.json", "results"
"""Names in a run's folder, and the folder of the evaluations beside the runs."""


@dataclass(frozen=True)
class RunLine:
    """A run, or one evaluation of it.

    Attributes:
        folder: of the run.
        name: of the run, and behind a colon the split or the manifest of the evaluation where that is not ``test``.
        model: ``model.type``.
        state: ``finished``, or ``unfinished, step N``.
        steps: optimiser steps that were done.
        minutes: of training; None for a run that is not finished.
        parameters: trained and all, None for a run that is not finished.
        scores: of the evaluation, each with ``value``, ``low`` and ``high``; of a run without one those of the dev split.
        scored_on: ``test``, ``dev``, … or the manifest's name; None without scores.
        date: when the run's last record was written.
    """

    folder: Path
    name: str
    model: str
    state: str
    steps: int
    minutes: float | None
    parameters: tuple[int, int] | None
    scores: Mapping[str, Mapping[str, Any]]
    scored_on: str | None
    date: datetime

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        trained, total = self.parameters or (None, None)
        return {
            "folder": str(self.folder),
            "name": self.name,
            "model": self.model,
            "state": self.state,
            "steps": self.steps,
            "minutes": self.minutes,
            "parameters": total,
            "trainable_parameters": trained,
            "scored_on": self.scored_on,
            "scores": {
                name: {key: score.get(key) for key in ("value", "low", "high")}
                for name, score in self.scores.items()
            },
            "date": self.date.isoformat(timespec="seconds"),
        }


def run_folders(outputs: Path) -> list[Path]:
    """The folders of runs in ``outputs``, by name; ``outputs`` itself where it is one."""
    if is_run(outputs):
        return [outputs]
    return [path.parent for path in sorted(listed(outputs, f"*/{CONFIG}")) if is_run(path.parent)]


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a training leaves behind."""
    left = (folder / FINISHED).is_file() or (folder / "metrics").is_dir() or any(folder.glob("checkpoint-*"))
    return (folder / CONFIG).is_file() and left


def find_run(given: Path, outputs: Path = RUNS) -> Path:
    """The folder that is meant: a run's folder, or the name of a run in ``outputs``; `UserError` for neither."""
    for place in (given, outputs / given):
        if is_run(place):
            return place
    if given.is_dir():
        raise UserError(f"{given}: holds no run (no {CONFIG} beside checkpoints, metrics or {FINISHED})")
    hint = path_hint(given, among=(outputs,)) or "; polyvox runs lists those that there are"
    raise UserError(f"{given}: no such run{hint}")


def overview(outputs: Path, results: Path | None = None) -> list[RunLine]:
    """A line for each evaluation of each run under ``outputs``; one for a run without.

    Args:
        outputs: folder of the runs, or one run's.
        results: folder of the evaluations; default: ``results`` in ``outputs``, or beside the one run.
    """
    folders = run_folders(outputs)
    place = results or (outputs.parent if folders == [outputs] else outputs) / RESULTS
    evaluations = list(load_results(place)) if place.is_dir() else []
    return [line for folder in folders for line in _lines(folder, results_of(folder, evaluations))]


def results_of(folder: Path, evaluations: Iterable[Result]) -> list[Result]:
    """The evaluations that are of this run, by the folder that they name."""
    return [one for one in evaluations if _of(folder, one)]


def _of(folder: Path, result: Result) -> bool:
    named = Path(str((result.report.get("meta") or {}).get("model_dir") or ""))
    if named.name.startswith("checkpoint-"):
        named = named.parent
    # A moved project keeps its folders' names.
    return named.resolve() == folder.resolve() or (not named.exists() and named.name == folder.resolve().name)


def _lines(folder: Path, evaluations: Sequence[Result]) -> Iterator[RunLine]:
    config = _mapping(folder / CONFIG, yaml.safe_load)
    finished = _mapping(folder / FINISHED, json.loads)
    history = history_of(folder)
    steps = int(finished.get("steps") or max((int(one.get("step") or 0) for one in history), default=0))
    trained, total = finished.get("trainable_parameters"), finished.get("parameters")
    seconds = finished.get("train_seconds")
    common: dict[str, Any] = {
        "folder": folder,
        "model": str((config.get("model") or {}).get("type") or "?"),
        "state": "finished" if finished else f"unfinished, step {steps:,}",
        "steps": steps,
        "minutes": None if seconds is None else seconds / 60,
        "parameters": (trained, total) if trained is not None and total is not None else None,
        "date": datetime.fromtimestamp(_last_written(folder)),
    }
    for one in evaluations:
        meta = one.report["meta"]
        where = meta.get("split") or Path(str(meta.get("manifest") or one.run)).name
        name = folder.name if where == "test" else f"{folder.name}: {where}"
        yield RunLine(name=name, scores=_scores(one.report["scores"]), scored_on=where, **common)
    if not evaluations:
        scores = dev_scores(history)
        yield RunLine(name=folder.name, scores=scores, scored_on="dev" if scores else None, **common)


def _scores(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: found[name] for name in LABELS if name in found}


def dev_scores(history: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The scores of the last evaluation during training that has any; without intervals."""
    for record in reversed(history):
        found = {
            name: record[one.logged] for name, one in METRICS.items() if one.corpus and one.logged in record
        }
        if found:
            return {name: {"value": value} for name, value in found.items()}
    return {}


def history_of(folder: Path) -> list[dict[str, Any]]:
    """The records that a run has logged, in order."""
    records: list[dict[str, Any]] = []
    for path in sorted(folder.glob("metrics/*_metrics.json")):
        found = _mapping(path, json.loads).get("history")
        records += found if isinstance(found, list) else []
    return records


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    """The content of a file; empty where it is not there."""
    if not path.is_file():
        return {}
    try:
        found = parse(path.read_text(encoding="utf8"))
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error}); move the folder away, or train again") from error
    return found if isinstance(found, dict) else {}


def _last_written(folder: Path) -> float:
    files = [folder / CONFIG, folder / FINISHED, *folder.glob("metrics/*_metrics.json")]
    return max(file.stat().st_mtime for file in files if file.is_file())
