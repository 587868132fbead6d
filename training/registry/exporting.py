"""Out of the registry into files, and from a run's files into the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from training.base.errors import UserError
from training.base.files import DerivedFiles, rebase
from training.base.system_files import listed
from training.data.prepare.split import PARTS
from training.data.tables import row_writer
from training.registry import recording, versions
from training.registry.source import VersionSplit, manifest_of
from training.registry.store import Registry

RECORD = "export.json"
_BLOCK = 8192


def export(
    registry: Registry, version: str, folder: Path, suffix: str = "csv", *, force: bool = False
) -> dict[Path, int]:
    """``<split>.<suffix>`` for every split of the version; utterances by path.

    Audio paths are relative to ``folder``. Raises `UserError` for files that somebody else made.
    """
    found = versions.rows(registry, version)
    splits = {
        part: manifest_of(registry, rows, f"{version}/{part}")
        for part in PARTS
        if (rows := [row for row in found if row.split == part])
    }
    targets = {folder / f"{part}.{suffix}": manifest for part, manifest in splits.items()}
    try:
        with DerivedFiles(folder / RECORD, targets, force=force) as files:
            for path, manifest in targets.items():
                with files.open(path) as handle:
                    _write(handle, manifest, path)
            files.publish({"made_by": "polyvox data export", "registry": registry.name, "version": version})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return {path: len(manifest) for path, manifest in targets.items()}


def _write(handle: Any, manifest: VersionSplit, path: Path) -> None:
    write = row_writer(handle, path.suffix, [*manifest.column_names, "split"])
    for start in range(0, len(manifest), _BLOCK):
        for row in manifest.table.slice(start, _BLOCK).to_pylist():
            write({**row, "audio_path": rebase(row["audio_path"], path.parent), "split": path.stem})


def record_folder(registry: Registry, folder: Path) -> int:
    """Store the figures that a run has left in its folder; how many records.

    Raises `UserError` for a folder that is no run's, or that was not trained from a registry.
    """
    config = _config(folder)
    data, output = config.get("data") or {}, config.get("output") or {}
    if not data.get("registry"):
        raise UserError(f"{folder}: was not trained from a registry (no data.registry in its config.yaml)")
    history = _history(folder)
    name = str(output.get("experiment_name", folder.name))
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    run_id = recording.start_run(registry, folder, name=name, version=data["version"], config=text)
    recording.store_metrics(registry, run_id, history)
    results = folder / "train_results.json"
    done = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None
    status = recording.FINISHED if done else recording.STOPPED
    recording.finish_run(registry, run_id, status=status, results=done)
    return len(history)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: no run's folder (it has no config.yaml)")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _history(folder: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for path in sorted(listed(folder / "metrics", "*_metrics.json")):
        try:
            records += json.loads(path.read_text(encoding="utf-8"))["history"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: holds no training history ({error})") from error
    return records
