"""From a TSV, CSV, JSONL or Parquet file to an Arrow table of strings, and where each row stood in the file.

The fast road is Arrow's own reader. Where that might read something else than the strict one, or refuses a file, the
file is read by the strict one, which also says which lines are wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.base.nearest import path_hint
from training.data.cells import bytes_problem, is_marked, json_cell, raw_cell, with_marks
from training.data.column_names import NUMBERS
from training.data.json_tables import read_jsonl
from training.data.table_basics import LINE, MAX_PROBLEMS, Broken, check_names, raise_problems
from training.data.text_tables import read_text

__all__ = [
    "LINE",
    "MAX_PROBLEMS",
    "Broken",
    "cell_text",
    "fingerprint",
    "json_cell",
    "raise_problems",
    "read_table",
    "row_writer",
    "stringify",
]


_SPECIAL = re.compile(r'[",\r\n]')


def read_table(path: Path, broken: Broken | None = None) -> pa.Table:
    """All cells as strings (null where JSON or Parquet has none), plus the int32 column `LINE`.

    TSV is read without quoting: a quote is a character like any other, and a tab or a line break always ends a
    cell. Only a cell that a CSV writer has certainly quoted (quotes around it, those inside it doubled, at least
    one of them) is unquoted afterwards. CSV is quoted as in RFC 4180; its header shows what separates the cells
    (`training.data.text_tables`). A schema note says which cells of JSONL and Parquet were no text
    (`training.data.cells`). Raises `UserError` with ``file:line`` for what cannot be read.

    With a list ``broken``, rows of the wrong number of cells (in JSONL: that are no object) are left out of the
    table, and their lines and what is wrong put there, in place of refusing the file.
    """
    readers: dict[str, Callable[[Path, Broken | None], pa.Table]] = {
        ".tsv": read_text,
        ".csv": read_text,
        ".jsonl": read_jsonl,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: a manifest is one of {', '.join(readers)}; this is {path.suffix or 'without suffix'!r}"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file{path_hint(path)}")
    try:
        return reader(path, broken)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


# -- Parquet ---------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, broken: Broken | None) -> pa.Table:
    from pyarrow import parquet

    try:
        check_names(path, list(parquet.read_schema(path).names))
        table = parquet.read_table(path, memory_map=True, partitioning=None)
        return _strings_of(path, table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error


def _strings_of(path: Path, table: pa.Table) -> pa.Table:
    try:
        return stringify(table)
    except UserError as error:  # which names the column alone
        raise UserError(f"{path}: {error}") from error


def stringify(table: pa.Table) -> pa.Table:
    """Every column as strings, lists and structs as JSON, and `LINE` with the row's number; other cells are noted."""
    columns, marks = {}, {}
    for name in table.column_names:
        columns[name], marks[name] = _string_column(table.column(name), name)
    lines = pa.array(np.arange(1, table.num_rows + 1, dtype=np.int32))
    return with_marks(pa.table({**columns, LINE: lines}), marks)


def _string_column(
    column: pa.ChunkedArray, name: str
) -> tuple[pa.ChunkedArray | pa.Array, Sequence[int] | np.ndarray]:
    """The cells as strings, and the rows whose cell was neither text nor a whole number."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind):
        column.validate(full=True)  # UTF-8
        return column, ()
    if pa.types.is_nested(kind):
        values = column.to_pylist()
        marks = [row for row, value in enumerate(values) if is_marked(value, name)]
        return pa.array([raw_cell(value, name) for value in values], pa.string()), marks
    if _holds_bytes(kind):
        raise UserError(bytes_problem(name))
    if pa.types.is_duration(kind) and name in NUMBERS:
        nanoseconds = column.cast(pa.duration("ns")).cast(pa.int64())
        column, kind = pc.divide(nanoseconds.cast(pa.float64()), 1e9), pa.float64()
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    cells = column.cast(pa.string())
    if name in NUMBERS and not pa.types.is_boolean(kind):
        return cells, ()
    text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if text or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return cells, ()
    return cells, np.flatnonzero(pc.is_valid(cells).to_numpy(zero_copy_only=False))


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def fingerprint(table: pa.Table) -> str:
    """SHA-256 of all cells and column names, hexadecimal."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


# -- writing ---------------------------------------------------------------------------------------------------


def row_writer(handle: TextIO, suffix: str, columns: Sequence[str]) -> Callable[[Mapping[str, Any]], None]:
    """A function that writes one row; the format follows ``suffix``. White space in a TSV cell becomes a space.

    Raises `UserError` for a suffix that is not written (``.tsv``, ``.csv``, ``.jsonl`` are).
    """
    if suffix == ".jsonl":
        return lambda row: _write_json(handle, columns, row)
    if suffix == ".csv":
        _write_csv(handle, columns)
        return lambda row: _write_csv(handle, [cell_text(row.get(name)) for name in columns])
    if suffix == ".tsv":
        handle.write("\t".join(columns) + "\n")
        return lambda row: _write_tsv(handle, columns, row)
    raise UserError(f"{suffix or 'no suffix'}: a manifest is written as .tsv, .csv or .jsonl")


def cell_text(value: Any) -> str:
    """A cell as it is written: nothing for None, numbers to the microsecond without trailing zeros."""
    if value is None:
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _write_csv(handle: TextIO, cells: Sequence[str]) -> None:
    """As Python's csv module does it, but it leaves a carriage return without quotes, and no reader takes that."""
    quoted = ['"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell for cell in cells]
    handle.write((",".join(quoted) or '""') + "\n")


def _write_tsv(handle: TextIO, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    handle.write("\t".join(re.sub(r"[\t\r\n]+", " ", cell_text(row.get(name))) for name in columns) + "\n")


def _write_json(handle: TextIO, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    filled = {name: row[name] for name in columns if row.get(name) is not None}
    handle.write(json.dumps(filled, ensure_ascii=False) + "\n")
