"""Whether a path can be a model's folder at all; imports nothing, so that a misspelt name is told at once."""

from __future__ import annotations

from pathlib import Path

from training.base.errors import UserError
from training.base.nearest import RUNS, path_hint


def check_model_folder(folder: Path) -> None:
    """`UserError` for a folder that is not there, with the run that was probably meant."""
    if folder.is_dir():
        return
    hint = (
        path_hint(folder, among=(RUNS,)) or "; give a run's folder or one of its checkpoints (polyvox runs)"
    )
    what = "is a file, and a model is a folder" if folder.is_file() else "no such folder"
    raise UserError(f"{folder}: {what}{hint}")
