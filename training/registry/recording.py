"""Stores runs, their figures and their predictions in the registry that they were trained from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from training.data.example import Example, Hypothesis
from training.data.metric import WER
from training.registry import versions
from training.registry.schema import EpochMetric, Prediction, Run, VersionItem, hash_of, now
from training.registry.shelf import chunks
from training.registry.store import Registry

RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"
_RUNS: Any = Run.__table__
_METRICS: Any = EpochMetric.__table__
_PREDICTIONS: Any = Prediction.__table__
_ITEMS: Any = VersionItem.__table__
_INSERT = 5_000


def start_run(registry: Registry, folder: Path, *, name: str, version: str, config: str) -> int:
    """The id of the run in ``folder``, now running; one that is resumed keeps its id."""
    stored = registry.relative(folder)
    with registry.write() as connection:
        chosen = versions.find(connection, registry, version, key="data.version:")
        values = {
            "name": name,
            "version_id": chosen.id,
            "config": config,
            "status": RUNNING,
            "results": None,
            "finished_at": None,
        }
        found = _run_id(connection, registry, folder)
        if found is None:
            key = hash_of(stored)
            row = {"folder": stored, "folder_key": key, "started_at": now(), **values}
            connection.execute(insert(_RUNS).values(row))
            return int(connection.execute(select(_RUNS.c.id).where(_RUNS.c.folder_key == key)).scalar_one())
        connection.execute(update(_RUNS).where(_RUNS.c.id == found).values(values))
        return found


def _run_id(connection: Connection, registry: Registry, folder: Path) -> int | None:
    key = hash_of(registry.relative(folder))
    return connection.execute(select(_RUNS.c.id).where(_RUNS.c.folder_key == key)).scalar()


def store_metrics(registry: Registry, run_id: int, history: Iterable[Mapping[str, Any]]) -> None:
    """All figures of ``history`` (records with ``step``, ``epoch`` and figures), in place of those stored before."""
    rows = {(row["step"], row["name"]): row for record in history for row in _figures(run_id, record)}
    with registry.write() as connection:
        connection.execute(delete(_METRICS).where(_METRICS.c.run_id == run_id))
        for block in chunks(rows.values(), _INSERT):
            connection.execute(insert(_METRICS), block)


def _figures(run_id: int, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    step, epoch = record.get("step"), record.get("epoch")
    if not isinstance(step, int):
        return []
    return [
        {"run_id": run_id, "step": step, "epoch": epoch, "name": name, "value": float(value)}
        for name, value in record.items()
        if name not in ("step", "epoch") and isinstance(value, (int, float)) and math.isfinite(value)
    ]


def finish_run(
    registry: Registry, run_id: int, *, status: str = FINISHED, results: Mapping[str, Any] | None = None
) -> None:
    """The run has come to its end, or was stopped."""
    values = {
        "status": status,
        "finished_at": now(),
        "results": json.dumps(results, default=str) if results else None,
    }
    with registry.write() as connection:
        connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(values))


def store_predictions(
    registry: Registry,
    folder: Path,
    split: str,
    examples: Sequence[Example],
    hypotheses: Sequence[Hypothesis],
) -> int:
    """Store the predictions of a run for a split; they replace earlier ones.

    Args:
        registry: the registry that the run was trained from.
        folder: the run's folder.
        split: name of the split.
        examples: the utterances.
        hypotheses: the predictions.

    Returns:
        The number of stored predictions; 0 where the registry has no such run (a model that was trained elsewhere).
    """
    texts = {example.id: example.texts for example in examples}
    with registry.write() as connection:
        run_id = _run_id(connection, registry, folder)
        if run_id is None:
            return 0
        known = _transcripts_of(connection, run_id)
        connection.execute(
            delete(_PREDICTIONS).where(_PREDICTIONS.c.run_id == run_id, _PREDICTIONS.c.split == split)
        )
        rows = [
            {
                "run_id": run_id,
                "key": hash_of(split, hypothesis.task, hypothesis.id),
                "transcript_id": known.get(hypothesis.id),
                "utterance": hypothesis.id,
                "split": split,
                "task": hypothesis.task,
                "reference": texts.get(hypothesis.id, {}).get(hypothesis.task),
                "hypothesis": hypothesis.text,
                "confidence": hypothesis.confidence,
            }
            for hypothesis in hypotheses
        ]
        for block in chunks(rows, _INSERT):
            connection.execute(insert(_PREDICTIONS), block)
    return len(rows)


def _transcripts_of(connection: Connection, run_id: int) -> dict[str, int]:
    query = (
        select(_ITEMS.c.utterance, _ITEMS.c.transcript_id)
        .join(_RUNS, _RUNS.c.version_id == _ITEMS.c.version_id)
        .where(_RUNS.c.id == run_id)
    )
    return {row.utterance: row.transcript_id for row in connection.execute(query)}


def runs(registry: Registry) -> list[dict[str, Any]]:
    """Every run: name, folder, version, status, start, best ``eval_wer`` and the step of its last figure."""
    table = versions._VERSIONS
    best = (
        select(_METRICS.c.run_id, func.min(_METRICS.c.value).label("best_wer"))
        .where(_METRICS.c.name == WER.logged)
        .group_by(_METRICS.c.run_id)
        .subquery()
    )
    last = (
        select(_METRICS.c.run_id, func.max(_METRICS.c.step).label("step"))
        .group_by(_METRICS.c.run_id)
        .subquery()
    )
    query = (
        select(
            _RUNS.c.name,
            _RUNS.c.folder,
            table.c.name.label("version"),
            _RUNS.c.status,
            _RUNS.c.started_at,
            best.c.best_wer,
            last.c.step,
        )
        .outerjoin(table, table.c.id == _RUNS.c.version_id)
        .outerjoin(best, best.c.run_id == _RUNS.c.id)
        .outerjoin(last, last.c.run_id == _RUNS.c.id)
        .order_by(_RUNS.c.id)
    )
    with registry.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]
