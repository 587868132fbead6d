"""An exported folder: its record ``polyvox.json``, read and checked before anything of it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.base.errors import UserError
from training.base.files import sha256
from training.models.export_parts import VERSION, Description

RECORD = "polyvox.json"
TOKENIZER = "tokenizer.json"
PASSED, FAILED, UNDECIDED, NOT_CHECKED = "passed", "failed", "undecided", "not checked"
"""Verdicts of the comparison with the original."""


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    format, precision: of the model's files. architecture: the ``model.type`` of the original. checked: verdict of the
    comparison with the original; ``not checked`` where it was left out. record: all of ``polyvox.json``.
    """

    folder: Path
    format: str
    precision: str
    architecture: str
    checked: str
    description: Description
    record: Mapping[str, Any]

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER


def is_exported(folder: Path) -> bool:
    """Whether the folder has a record of ``polyvox export``."""
    return (folder / RECORD).is_file()


def read_exported(folder: Path) -> Exported:
    """Read the record of a folder, and compare the hash of every file with the record's.

    Args:
        folder: what ``polyvox export`` wrote.

    Raises:
        UserError: the record is damaged or of another version, or a file is missing or not the one that was written.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged, not JSON ({error}); export the model again") from error
    version = record.get("version") if isinstance(record, dict) else None
    if version != VERSION:
        raise UserError(
            f"{path}: written by another version of polyvox export (version {version}, this one reads {VERSION}); export the "
            "model again"
        )
    try:
        description = Description.model_validate(record["description"])
        found = Exported(
            folder=folder,
            format=record["format"],
            precision=record["precision"],
            architecture=record["architecture"],
            checked=record["check"]["verdict"],
            description=description,
            record=record,
        )
        files = dict(record["files"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: damaged ({type(error).__name__}: {reason}); export the model again"
        ) from error
    _check_files(folder, files)
    return found


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        if Path(name).name != name:
            raise UserError(f"{folder / RECORD}: damaged (names a file outside the folder: {name})")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; copy the folder again, or export the model again")
        if sha256(folder / name) != expected:
            raise UserError(
                f"{folder / name}: is not the file that was exported and checked (its SHA-256 differs from that in {RECORD}); "
                "copy the folder again, or export the model again"
            )
