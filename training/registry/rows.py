"""The table that a user brings: its columns under our names, its broken rows in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.data.column_names import ALIASES
from training.data.columns import (
    COMMAND,
    Problems,
    check_cells,
    check_columns,
    rename,
    with_id,
    with_length,
    with_numbers,
)
from training.data.file_names import existing
from training.data.ledger import DropLedger
from training.data.manifest import Manifest
from training.data.tables import LINE, Broken, read_table

_LOOKED_AT = 50


@dataclass(frozen=True)
class Metadata:
    """The rows that can be read (their durations may be null), and the ledger of the others."""

    manifest: Manifest
    broken: DropLedger
    note: str = ""

    @property
    def total(self) -> int:
        """Rows of the file."""
        return len(self.manifest) + len(self.broken)


class _EveryProblem(Problems):
    """All problems by row, where the manifest's reader stops at twenty."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        super().__init__(path, table)
        self.by_row: dict[int, str] = {}

    def add(self, row: int, message: str) -> None:
        self.by_row.setdefault(row, message)

    def add_rows(self, mask: pa.ChunkedArray | pa.Array, describe: Callable[[int], str]) -> None:
        for row in np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)):
            self.add(int(row), describe(int(row)))


def read_metadata(
    path: Path, *, columns: Mapping[str, str] | None = None, audio_root: Path | None = None
) -> Metadata:
    """Read CSV, TSV, JSONL or Parquet. A row with a wrong cell is broken; the file goes on.

    Without ``audio_root`` relative paths start from the table's folder, or, where nothing lies there, from the
    working directory. Raises `UserError` for a file that cannot be read (``file:line``) and for missing columns.
    """
    cells: Broken = []
    table = read_table(path, cells)
    if not table.num_rows and not cells:
        raise UserError(f"{path}:1: no rows under the header")
    table = with_length(rename(table, {**_aliases(table, columns or {}), **(columns or {})}, path))
    check_columns(table, path, ["transcript"], option=COMMAND)
    problems = _EveryProblem(path, table)
    table = check_cells(table, problems)
    table = with_id(with_numbers(table, problems, need_duration=False), problems)
    ledger = DropLedger()
    for line, what in cells:
        ledger.add(f"{path.name}:{line}", "bad_row", f"{path}:{line}: {what}")
    ids, lines = table.column("id"), table.column(LINE)
    for row, what in sorted(problems.by_row.items()):
        ledger.add(str(ids[row]), "bad_row", f"{path}:{lines[row]}: {what}")
    good = np.setdiff1d(np.arange(table.num_rows), np.fromiter(problems.by_row, dtype=np.int64))
    kept = table.take(pa.array(good)).combine_chunks().replace_schema_metadata(None)
    root, note = (audio_root, "") if audio_root is not None else _guess_root(kept, path)
    return Metadata(Manifest(kept, path, root), ledger, note)


def _aliases(table: pa.Table, given: Mapping[str, str]) -> dict[str, str]:
    there = set(table.column_names) - set(given.values())
    found: dict[str, str] = {}
    for ours, others in ALIASES.items():
        if ours not in there and ours not in given:
            named = [name for name in others if name in there]
            found |= {ours: named[0]} if named else {}
    return found


def _guess_root(table: pa.Table, path: Path) -> tuple[Path | None, str]:
    """The working directory, where the first paths lead somewhere from there and nowhere from the table's folder."""
    cells = [str(cell) for cell in table.column("audio_path")[:_LOOKED_AT].to_pylist()]
    if any(existing(path.parent / cell) for cell in cells) or not any(existing(cell) for cell in cells):
        return None, ""
    return Path.cwd(), f"audio paths start from the working directory ({Path.cwd()})"
