"""A record of the training utterances: a few bytes per row, stored with every checkpoint and compared on resuming.

A row is what training sees of it: its sound, its texts, its languages and domain. Names of utterances do not count; they
serve only to say which rows are others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SOUND, TEXT, OTHER = "sound", "text", "language or domain"
PARTS = {
    SOUND: ("start", "end", "duration"),
    TEXT: ("transcript", "translation"),
    OTHER: ("language", "target_language", "domain", "words", "word_languages"),
}
"""Part of a row → its columns; the sound has `Rows.sound_marks` too."""
EXAMPLES = 5
_BETWEEN = "\x1f"


class Rows(Protocol):
    """The methods of a data source that this module uses."""

    @property
    def ids(self) -> list[str]: ...

    @property
    def table(self) -> pa.Table: ...

    def sound_marks(self) -> list[str]:
        """A mark of the audio of each row: its path and size in bytes, or a hash of its content."""
        ...


@dataclass(frozen=True)
class Changes:
    """From one record to another; ids of utterances. ``changed`` says which parts of a row are others."""

    before: int
    now: int
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[tuple[str, tuple[str, ...]]] = ()
    reordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.reordered)

    def counts(self) -> dict[str, int | bool]:
        """Without the names of utterances, which are not for everybody."""
        found = {"added": len(self.added), "removed": len(self.removed), "changed": len(self.changed)}
        return {**found, "reordered": self.reordered}

    def __str__(self) -> str:
        told = [
            *_told("added", self.added),
            *_told("removed", self.removed),
            *_told("changed", [f"{name}: {' and '.join(parts)}" for name, parts in self.changed]),
        ]
        if self.reordered:
            told.append("the others in another order" if told else "the same ones in another order")
        return f"{self.before:,} utterances then, {self.now:,} now: {'; '.join(told)}"


def _told(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = ", …" if len(names) > EXAMPLES else ""
    return [f"{len(names):,} {what} ({', '.join(names[:EXAMPLES])}{more})"]


def record(rows: Rows) -> pa.Table:
    """The record of a source: ``id``, and for each of `PARTS` a checksum (uint32)."""
    table, marks = rows.table, rows.sound_marks()
    columns = {"id": pa.array(rows.ids, pa.string())}
    for part, names in PARTS.items():
        cells = [_text(table.column(name)) for name in names if name in table.column_names]
        if part == SOUND:
            cells.insert(0, pa.array(marks, pa.string()))
        columns[part] = _checksums(cells, len(marks))
    return pa.table(columns)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.string()), ""))


def _checksums(cells: Sequence[Any], rows: int) -> pa.Array:
    if not cells:
        return pa.array(np.zeros(rows, dtype=np.uint32))
    joined = pc.cast(pc.binary_join_element_wise(*cells, _BETWEEN), pa.binary())
    return pa.array(np.fromiter(map(zlib.crc32, joined.to_pylist()), dtype=np.uint32, count=rows))


def write(table: pa.Table) -> bytes:
    """A record as the bytes of a compressed Arrow file."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read(path: Path) -> pa.Table | None:
    """The record in a file; None where there is none that this version understands."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return table if {"id", *PARTS} <= set(table.column_names) else None


def compare(before: pa.Table, now: pa.Table) -> Changes:
    """The differences of two records; empty where the rows and their order are the same."""
    old, new = _keys(before), _keys(now)
    if np.array_equal(old, new):
        return Changes(len(old), len(new))
    old_marks, new_marks = _numbered(old), _numbered(new)
    lost, fresh = ~np.isin(old_marks, new_marks), ~np.isin(new_marks, old_marks)
    left, arrived = _by_id(before, lost), _by_id(now, fresh)
    changed = [(name, _parts(left[name], arrived[name])) for name in left if name in arrived]
    return Changes(
        len(old),
        len(new),
        added=[name for name in arrived if name not in left],
        removed=[name for name in left if name not in arrived],
        changed=changed,
        reordered=not np.array_equal(old_marks[~lost], new_marks[~fresh]),
    )


def _keys(table: pa.Table) -> np.ndarray:
    """One number for what training sees of each row, uint64 ``[rows]``."""
    sound, text, other = (table.column(part).to_numpy().astype(np.uint64) for part in PARTS)
    return (sound << np.uint64(32) | text) ^ _mixed(other)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Small numbers spread over 64 bits (Fibonacci hashing)."""
    return values * np.uint64(0x9E3779B97F4A7C15)


def _numbered(keys: np.ndarray) -> np.ndarray:
    """The keys, those that come again made different: the second of two equal rows is a row of its own."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    again = np.empty(len(keys), dtype=np.uint64)
    again[order] = np.arange(len(keys)) - np.searchsorted(ordered, ordered, side="left")
    return keys ^ _mixed(_mixed(again) >> np.uint64(7))


def _by_id(table: pa.Table, wanted: np.ndarray) -> dict[str, tuple[int, ...]]:
    """The checksums of some rows by the utterance's id."""
    chosen = table.filter(pa.array(wanted))
    columns: Iterable[list[int]] = (chosen.column(part).to_pylist() for part in PARTS)
    return dict(zip(chosen.column("id").to_pylist(), zip(*columns, strict=True), strict=True))


def _parts(before: tuple[int, ...], now: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(part for part, one, other in zip(PARTS, before, now, strict=True) if one != other)
