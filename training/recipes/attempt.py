"""How a training step starts in a folder that may hold an earlier attempt: go on, start over, or stand back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.base.errors import UserError
from training.base.system_files import is_empty
from training.recipes.resolve import Resolved

RESULTS, CONFIG = "train_results.json", "config.yaml"
CHECKPOINT_MARKER = "complete.json"
FOUND_IN_DATA = ("language", "languages")
"""Keys of ``model`` that a training completes (`training.engine.spoken_language`); --resume refuses another given one."""


@dataclass(frozen=True)
class Start:
    """Flags for the training command; ``done``: the folder already holds the finished run."""

    flags: tuple[str, ...] = ()
    done: bool = False


RESUME, OVER = Start(("--resume",)), Start(("--fresh",))


def decide(
    run: Resolved, record: dict[str, Any] | None, inputs: str, *, fresh: bool, say: Callable[[str], None]
) -> Start:
    """What to do with the run's folder.

    Only what this attempt has written is gone on with; a finished run with other inputs is moved aside, never
    removed; a folder that the pipeline knows nothing of is a `UserError`, unless it is the same run.
    """
    if not run.folder.exists() or is_empty(run.folder):
        return Start()
    if fresh or (record and record.get("redo")):
        return OVER
    if record is None:
        return _unknown(run)
    results = run.folder / RESULTS
    if record["inputs"] == inputs and not record["finished"]:
        if _written_since(results, record):
            return Start(done=True)
        if run.checkpoint and _written_since(run.checkpoint / CHECKPOINT_MARKER, record):
            return RESUME
    if results.exists() or run.checkpoint:
        say(f"{run.folder} has other settings or data, or lacks files: kept as {move_aside(run.folder)}")
        return Start()
    return OVER


def _unknown(run: Resolved) -> Start:
    config = run.folder / CONFIG
    same = config.is_file() and _settings(config.read_text(encoding="utf8")) == _settings(run.text)
    if same and run.checkpoint and not (run.folder / RESULTS).exists():
        return RESUME
    raise UserError(
        f"{run.folder} holds files that this pipeline has not made; start it over with --fresh (removes an earlier "
        "run), or choose another place with paths.output_dir=…"
    )


def _settings(text: str) -> Any:
    """A resolved configuration without the language, which the run itself finds in its data where none is given."""
    values = yaml.safe_load(text)
    if isinstance(values, dict) and isinstance(values.get("model"), dict):
        values["model"] = {key: value for key, value in values["model"].items() if key not in FOUND_IN_DATA}
    return values


def _written_since(path: Path, record: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_mtime >= record["since"]


def move_aside(folder: Path) -> Path:
    """Rename to the first free ``old/<name>-<n>`` beside the folder, where the charts do not look."""
    number = 1
    while (target := folder.parent / "old" / f"{folder.name}-{number}").exists():
        number += 1
    target.parent.mkdir(exist_ok=True)
    return folder.rename(target)
