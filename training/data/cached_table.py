"""A cache of a table that was read from many files. It is stored beside them and valid while they stay the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from training.base.files import atomic_bytes
from training.data.ledger import Drop, DropLedger

_NOTE = b"polyvox"


class CachedTable(NamedTuple):
    """A table, the ledger of what was left out of it, and notes on it."""

    table: pa.Table
    refused: DropLedger
    notes: tuple[str, ...]


def load_cached(path: Path, key: str) -> CachedTable | None:
    """The table that `store` wrote to ``path``; None where the file is missing, unreadable or has another key."""
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        note = json.loads((table.schema.metadata or {})[_NOTE])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    if note["key"] != key or "notes" not in note:
        return None
    refused = DropLedger([Drop(*one) for one in note["refused"]])
    return CachedTable(table.replace_schema_metadata(None), refused, tuple(note["notes"]))


def store(path: Path, key: str, table: pa.Table, refused: DropLedger, notes: Sequence[str] = ()) -> None:
    """Write a table to ``path``; a folder without write permission is left as it is.

    Args:
        path: the Arrow file to write.
        key: everything that the table depends on; `load_cached` compares it.
        table: the rows.
        refused: what was left out of the table, and why.
        notes: lines to print when the table is used.
    """
    note = {"key": key, "refused": [dataclasses.astuple(drop) for drop in refused], "notes": list(notes)}
    noted = table.replace_schema_metadata({_NOTE: json.dumps(note).encode()})
    try:
        with atomic_bytes(path) as handle, pa.ipc.new_file(handle, noted.schema) as writer:
            writer.write_table(noted)
    except OSError:  # without a cache the table is built again each time
        return
