"""The evaluations of a run: scores, swap tests and comparisons that lie in a results folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from training.base.errors import UserError
from training.base.system_files import listed
from training.config.schema import Config
from training.evaluation.stored import (
    METRICS_SUFFIX,
    PREDICTIONS_SUFFIX,
    SWAP_SUFFIX,
    load_results,
    read_json,
)


@dataclass(frozen=True)
class Scored:
    """One evaluation of the run: ``{name}_metrics.json``, and the swap test that was made with it."""

    name: str
    path: Path
    report: dict[str, Any]
    swap: tuple[Path, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Evidence:
    """All that was measured of a run; ``comparisons`` are those that it is the adapted model (B) of."""

    scored: tuple[Scored, ...] = ()
    comparisons: tuple[tuple[Path, dict[str, Any]], ...] = ()
    older: tuple[Path, ...] = field(default=())
    """Result files that were written before the weights: of an earlier training, perhaps."""

    def files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every result file and what it holds."""
        for one in self.scored:
            yield one.path, one.report
            if one.swap:
                yield one.swap
        yield from self.comparisons


def collect(folder: Path, config: Config, results: Path) -> Evidence:
    """What the results folder has of the run in ``folder``; nothing of its checkpoints or of other runs."""
    if not results.is_dir():
        return Evidence()
    sha256 = hashlib.sha256(config.to_yaml().encode()).hexdigest()
    scored = []
    for result in load_results(results):
        if _is_of(result.report.get("meta", {}), folder, sha256):
            path = results / f"{result.run}{METRICS_SUFFIX}"
            scored.append(Scored(result.run, path, result.report, _swap(results, result.run)))
    made = (folder / "config.json").stat().st_mtime
    older = tuple(one.path for one in scored if one.path.stat().st_mtime < made)
    return Evidence(tuple(scored), tuple(_comparisons(results, {one.name for one in scored})), older)


def results_folder(given: Path | None, folder: Path) -> Path:
    """``--results``, or ``results`` beside the run's folder; `UserError` for one that was named and is not there."""
    if given is not None and not given.is_dir():
        raise UserError(f"--results {given}: no such folder; leave it out to publish without scores")
    return given or folder.resolve().parent / "results"


def _is_of(meta: dict[str, Any], folder: Path, sha256: str) -> bool:
    """By the folder that was evaluated, or by the settings of its run where the folder was moved."""
    evaluated = str(meta.get("model_dir") or "")
    if not evaluated or PureWindowsPath(evaluated).name.startswith("checkpoint-"):
        return False
    return Path(evaluated).resolve() == folder.resolve() or meta.get("config_sha256") == sha256


def _swap(results: Path, name: str) -> tuple[Path, dict[str, Any]] | None:
    path = results / f"{name}{SWAP_SUFFIX}"
    return (path, read_json(path)) if path.is_file() else None


def _comparisons(results: Path, names: set[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(listed(results, "*.json")):
        if path.name.endswith((METRICS_SUFFIX, SWAP_SUFFIX)):
            continue
        found = read_json(path)
        ours = isinstance(found, dict) and {"a", "b", "metrics", "by_domain"} <= found.keys()
        if ours and PureWindowsPath(found["b"]).name.removesuffix(PREDICTIONS_SUFFIX) in names:
            yield path, found
