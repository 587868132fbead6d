"""A table that was read from many files, kept beside them as long as they stay the same."""

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


class Kept(NamedTuple):
    """A table, what is not in it, and what there is to say of it."""

    table: pa.Table
    refused: DropLedger
    notes: tuple[str, ...]


def recall(path: Path, key: str) -> Kept | None:
    """What `keep` wrote to ``path``; None where it is missing or has another key."""
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        note = json.loads((table.schema.metadata or {})[_NOTE])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    if note["key"] != key or "notes" not in note:
        return None
    refused = DropLedger([Drop(*one) for one in note["refused"]])
    return Kept(table.replace_schema_metadata(None), refused, tuple(note["notes"]))


def keep(path: Path, key: str, table: pa.Table, refused: DropLedger, notes: Sequence[str] = ()) -> None:
    """Write all of it under ``key``, which says all that it depends on; nothing in a folder that may only be read."""
    note = {"key": key, "refused": [dataclasses.astuple(drop) for drop in refused], "notes": list(notes)}
    noted = table.replace_schema_metadata({_NOTE: json.dumps(note).encode()})
    try:
        with atomic_bytes(path) as handle, pa.ipc.new_file(handle, noted.schema) as writer:
            writer.write_table(noted)
    except OSError:  # the table is made anew each time
        return
