"""Folders for results, tried before the work whose results they receive."""

from __future__ import annotations

import tempfile
from pathlib import Path

from training.errors import UserError


def writable(folder: Path, option: str) -> Path:
    """Make the folder and write a byte into it; `UserError` that names ``option`` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{option}: {folder} cannot be written to ({reason.lower()}: {error.filename or folder}); "
            "name another folder, or make room and give yourself the right to write there"
        ) from error
    return folder
