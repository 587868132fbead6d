"""Folders for results, tried before the work whose results they receive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


def missing_parts(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders in their order, up to the first that holds something or is not there."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@dataclass
class Start:
    """Whether a run that starts has claimed its folder; until then nothing in it is its own."""

    claimed: bool = False


@contextmanager
def vain_start_removed(folder: Path, own: Sequence[Path], *, of_value: Sequence[str]) -> Iterator[Start]:
    """The start of a run in a folder that holds nothing (or a run that is to go): where it fails, its leavings go too.

    ``own``: files and folders that the run writes. They are removed only once the folder is claimed, and only where it
    has nothing that matches one of the patterns ``of_value``. So the corrected command can start in the same folder.
    """
    missing, start = missing_parts(folder), Start()
    try:
        yield start
    except BaseException:
        if start.claimed and not any(any(folder.glob(pattern)) for pattern in of_value):
            for path in own:
                _remove(path)
        remove_empty(missing)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
