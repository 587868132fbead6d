"""A table that was read from many files, kept beside them as long as they stay the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa

from training.data.derived import atomic_bytes
from training.data.ledger import Drop, DropLedger

_NOTE = b"polyvox"


def recall(path: Path, key: str) -> tuple[pa.Table, DropLedger] | None:
    """The table and the ledger that `keep` wrote to ``path``; None where they are missing or have another key."""
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        note = json.loads((table.schema.metadata or {})[_NOTE])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    if note["key"] != key:
        return None
    return table.replace_schema_metadata(None), DropLedger([Drop(*one) for one in note["refused"]])


def keep(path: Path, key: str, table: pa.Table, refused: DropLedger) -> None:
    """Write both under ``key``, which says all that they depend on; nothing in a folder that may only be read."""
    note = {"key": key, "refused": [dataclasses.astuple(drop) for drop in refused]}
    noted = table.replace_schema_metadata({_NOTE: json.dumps(note).encode()})
    try:
        with atomic_bytes(path) as handle, pa.ipc.new_file(handle, noted.schema) as writer:
            writer.write_table(noted)
    except OSError:  # the table is made anew each time
        return
