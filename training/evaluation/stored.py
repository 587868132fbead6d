"""Reading back what runs and evaluations wrote: score files, prediction tables, training histories."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.nearest import RUNS, path_hint
from training.base.system_files import listed
from training.data.metric import Metric

METRICS_SUFFIX, PREDICTIONS_SUFFIX, SWAP_SUFFIX = "_metrics.json", "_predictions.csv", "_swap.json"
DEPLOYMENT_SUFFIX = "_deployment.json"
CHANGED = "changed"
"""The rows whose translation is another text than their transcript."""
_COLUMNS = ("id", "task", "language", "reference", "hypothesis")


@dataclass(frozen=True)
class History:
    """One run's curve: ``records`` as logged (``step``, ``epoch``, ``loss``, ``eval_loss``, …), in order."""

    run: str
    experiment: str
    records: list[dict[str, Any]]
    config: str = ""
    place: str = ""
    """The part of the run's folder that distinguishes runs with the same name."""

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of one logged name; records without it are left out."""
        pairs = ((record.get("step"), record.get(name)) for record in self.records)
        return [
            (float(x), float(y))
            for x, y in pairs
            if isinstance(x, (int, float)) and isinstance(y, (int, float))
        ]


@dataclass(frozen=True)
class Result:
    """One evaluation: the content of its metrics file and, read when asked for, its predictions."""

    run: str
    report: dict[str, Any]
    predictions_path: Path | None = None
    _cache: list[dict[str, str]] = field(default_factory=list, repr=False, compare=False)

    def predictions(self) -> list[dict[str, str]]:
        if self.predictions_path is not None and not self._cache:
            self._cache.extend(read_predictions(self.predictions_path))
        return self._cache

    def translated(self, rows: str, system: str, metric: Metric) -> dict[str, Any] | None:
        """A score of the section on translation.

        Args:
            rows: ``all``, `CHANGED` or ``unchanged``.
            system: ``ours``, or one of the two that copy a transcript.
            metric: of translations.
        """
        section = self.report.get("translation") or {}
        return (section.get(rows, {}).get(system) or {}).get(metric.name)


def judged_by(results: Sequence[Result], metric: Metric) -> bool:
    """Whether evaluations are judged by the metric's target: those of the demo corpus are."""
    return any(
        one["metric"] == metric.name for result in results for one in result.report.get("targets") or ()
    )


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable JSON file ({error}); write it anew or move it away"
        ) from error


def read_predictions(path: Path) -> list[dict[str, str]]:
    """The rows of a predictions table, every cell as the text that it is ("nan" stays a word)."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}:1: no column {', '.join(missing)}; is it a predictions table of an evaluation?"
                )
            return list(reader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; evaluate the run first") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error


def load_results(folder: Path) -> list[Result]:
    """Every ``*_metrics.json`` of the results folder, by name."""
    return [_result(path) for path in sorted(listed(folder, f"*{METRICS_SUFFIX}"))]


def load_deployments(folder: Path) -> list[dict[str, Any]]:
    """Every ``*_deployment.json`` of the results folder, by name (``polyvox check-deployment``)."""
    found = []
    for path in sorted(listed(folder, f"*{DEPLOYMENT_SUFFIX}")):
        report = read_json(path)
        if not isinstance(report, dict) or not {"parts", "verdict", "run"} <= set(report):
            raise UserError(f"{path}: holds no check of a deployment; move it away, or make it anew")
        found.append(report)
    return found


def _result(path: Path) -> Result:
    report = read_json(path)
    if not isinstance(report, dict) or "scores" not in report:
        raise UserError(f"{path}: holds no scores; it was not written by an evaluation")
    run = path.name[: -len(METRICS_SUFFIX)]
    table = path.with_name(run + PREDICTIONS_SUFFIX)
    return Result(run, report, table if table.is_file() else None)


def free_name(
    results: Path, wanted: str, model_dir: Path, config_sha256: str | None, suffix: str = METRICS_SUFFIX
) -> str:
    """``wanted``, or that with the name of the folder above, or a number, where the results of another run have it.

    So the evaluations of two runs whose folders have one name (``a/run``, ``b/run``) do not replace each other.
    ``suffix``: of the file that says whose results they are.
    """
    above = model_dir.resolve().parent.name
    names = chain([wanted, f"{wanted}_{above}"], (f"{wanted}_{number}" for number in count(2)))
    return next(name for name in names if not of_another(results, name, model_dir, config_sha256, suffix))


def of_another(
    results: Path, name: str, model_dir: Path, config_sha256: str | None, suffix: str = METRICS_SUFFIX
) -> bool:
    """Whether the results of this name are there and are those of another run, to judge by its folder.

    One with the same settings whose folder is gone counts as this one: it was moved here.
    """
    path = results / f"{name}{suffix}"
    if not path.is_file():
        return False
    report = read_json(path)
    meta = report.get("meta") if isinstance(report, dict) else None
    evaluated = Path(str((meta or {}).get("model_dir") or ""))
    if not meta or evaluated.resolve() == model_dir.resolve():
        return False
    moved = evaluated.name == model_dir.resolve().name and not evaluated.exists()
    return not (moved and meta.get("config_sha256") == config_sha256)


def load_histories(outputs: Path) -> list[History]:
    """The histories of all runs under ``outputs`` (``<run>/metrics/<experiment>_metrics.json``), by run."""
    return [_history(path, outputs) for path in sorted(listed(outputs, f"*/metrics/*{METRICS_SUFFIX}"))]


def _history(path: Path, outputs: Path) -> History:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("history"), list):
        raise UserError(f"{path}: holds no training history (a list under 'history')")
    run = path.parent.parent
    config = run / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    experiment = str(content.get("experiment") or run.name)
    return History(run.name, experiment, content["history"], text, place=path.relative_to(outputs).as_posix())


def find_predictions(given: Path) -> Path:
    """The predictions table that a path means: the table itself, or a run's or results folder that has one."""
    if given.is_file():
        return given
    if not given.is_dir():
        hint = path_hint(given, among=(RUNS,)) or f"; give a *{PREDICTIONS_SUFFIX} or a run's folder"
        raise UserError(f"{given}: no such file or folder{hint}")
    run = given.resolve().name
    places: Iterable[Path] = (
        *sorted(listed(given, f"*{PREDICTIONS_SUFFIX}")),
        given.resolve().parent / "results" / f"{run}{PREDICTIONS_SUFFIX}",
    )
    found = [place for place in places if place.is_file()]
    if not found:
        raise UserError(f"{given}: no predictions found there or under results/; evaluate the run first")
    if len(found) > 1:
        names = ", ".join(place.name for place in found)
        raise UserError(f"{given}: several predictions tables ({names}); name one of them")
    return found[0]
