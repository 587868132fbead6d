"""From a TSV, CSV, JSONL or Parquet file to an Arrow table of strings, and where each row stood in the file.

The fast road is Arrow's own reader. Only when it refuses a file is the file read again, slowly, to say which
lines are wrong.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import itertools
import json
import math
import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.errors import UserError

MAX_PROBLEMS = 20
"""Problems that are collected before a file is refused."""
LINE = "__line__"
"""Internal column: the line of the file (the row, in Parquet) that a row came from, counted from 1."""

_BLOCK = 1 << 24
_CHUNK_ROWS = 50_000
_CELL_LIMIT = 1 << 24
_QUOTED = r'^"(?:[^"]|"")*""(?:[^"]|"")*"$'


Broken = list[tuple[int, str]]


def read_table(path: Path, broken: Broken | None = None) -> pa.Table:
    """All cells as strings (null where JSON or Parquet has none), plus the int32 column `LINE`.

    TSV is read without quoting: a quote is a character like any other, and a tab or a line break always ends a
    cell. Only a cell that a CSV writer has certainly quoted (quotes around it, those inside it doubled, at least
    one of them) is unquoted afterwards. CSV is quoted as in RFC 4180. Raises `UserError` with ``file:line`` for what cannot be read.

    With a list ``broken``, rows of the wrong number of cells (in JSONL: that are no object) are left out of the
    table, and their lines and what is wrong put there, in place of refusing the file.
    """
    readers: dict[str, Callable[[Path, Broken | None], pa.Table]] = {
        ".tsv": _read_text,
        ".csv": _read_text,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: a manifest is one of {', '.join(readers)}; this is {path.suffix or 'without suffix'!r}"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return reader(path, broken)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def raise_problems(problems: list[str], more: int = 0) -> None:
    """`UserError` with all ``problems`` (already ``file:line: what``), nothing when there are none."""
    if problems:
        tail = f"\n… and {more:,} more" if more > 0 else ""
        raise UserError("\n".join(problems[:MAX_PROBLEMS]) + tail)


# -- TSV and CSV -----------------------------------------------------------------------------------------------


def _is_tsv(path: Path) -> bool:
    return path.suffix.lower() == ".tsv"


def _read_text(path: Path, broken: Broken | None) -> pa.Table:
    from pyarrow import csv as arrow_csv

    quote: str | bool = False if _is_tsv(path) else '"'
    _check_ends(path)
    header = [name.strip() for name in _header(path)]
    _check_header(path, header)
    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=header, skip_rows_after_names=1, block_size=_BLOCK
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter="\t" if _is_tsv(path) else ",",
                quote_char=quote,
                newlines_in_values=not _is_tsv(path),
                invalid_row_handler=None if broken is None else lambda row: "skip",
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _diagnose(path, len(header))
        raise UserError(f"{path}: cannot be read: {error}") from error
    if _is_tsv(path):
        table = _unquoted(table)
    return table.append_column(LINE, pa.array(_line_numbers(path, table.num_rows, len(header), broken)))


def _unquoted(table: pa.Table) -> pa.Table:
    """Undo the quoting of cells like ``"[[""word"", 0, 1]]"``, which Python's csv module writes into a TSV."""
    for at, name in enumerate(table.column_names):
        column = table.column(at)
        quoted = pc.match_substring_regex(column, _QUOTED)
        if pc.any(quoted).as_py():
            inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
            table = table.set_column(at, name, pc.if_else(quoted, inner, column))
    return table


def _check_ends(path: Path) -> None:
    """Refuse what Arrow would misread: an empty file, UTF-16, a CSV in which a quote is never closed."""
    if path.stat().st_size == 0:
        raise UserError(f"{path}:1: the file is empty; the first line names the columns")
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{path}:1: the file is UTF-16; save it as UTF-8")
        if not _is_tsv(path) and _count(content, b'"') % 2:
            _diagnose(path, 0)


def _count(content: mmap.mmap, byte: bytes) -> int:
    blocks = range(0, len(content), _BLOCK)
    return sum(content[at : at + _BLOCK].count(byte) for at in blocks)


def _header(path: Path) -> list[str]:
    line, cells = next(_rows(path), (0, []))
    if line != 1:
        raise UserError(f"{path}:1: the first line is blank; it must name the columns")
    return cells


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}:1: the column {name!r} appears {header.count(name)} times")
    if "" in header:
        raise UserError(f"{path}:1: column {header.index('') + 1} has no name")


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends. `UserError` names the line that is not UTF-8."""
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); save the "
                    "file as UTF-8"
                ) from error


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """``(line on which the row starts, cells)``, blank lines left out. Slow: for headers and for messages."""
    if _is_tsv(path):
        for number, line in enumerate(_lines(path), 1):
            if line.strip("\r\n"):
                yield number, line.rstrip("\r\n").split("\t")
        return
    csv.field_size_limit(_CELL_LIMIT)
    reader = csv.reader(_lines(path), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: the row that starts here is not as RFC 4180 has it: {_csv_reason(error)}"
        ) from error


def _csv_reason(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "a carriage return outside quotes; lines end in LF or CR LF"
    if "unexpected end of data" in str(error):
        return "a quote that is opened in it is never closed"
    return str(error)


def _diagnose(path: Path, width: int) -> None:
    """Raise `UserError` naming the lines whose number of cells is not ``width``, or that cannot be decoded."""
    problems: list[str] = []
    for number, cells in _rows(path):
        if _is_tsv(path) and any("\r" in cell for cell in cells):
            problems.append(f"{path}:{number}: a carriage return inside the line; lines end in LF or CR LF")
        elif width and len(cells) != width:
            problems.append(f"{path}:{number}: {len(cells)} cells, the header names {width} columns")
        if len(problems) == MAX_PROBLEMS:
            break
    raise_problems(problems)


def _line_numbers(path: Path, rows: int, width: int, broken: Broken | None) -> np.ndarray:
    """Line of each row, int32 ``[rows]``: counted up where no blank line or line break in a cell can be there."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        lines = _count(content, b"\n") + (content[-1:] != b"\n")
    if lines == rows + 1:
        return np.arange(2, rows + 2, dtype=np.int32)
    starts = []
    for number, cells in itertools.islice(_rows(path), 1, None):
        if broken is None or len(cells) == width:
            starts.append(number)
        else:
            broken.append((number, f"{len(cells)} cells, the header names {width} columns"))
    assert len(starts) == rows, (len(starts), rows)
    return np.array(starts, dtype=np.int32)


# -- JSONL -----------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path, broken: Broken | None) -> pa.Table:
    """With Arrow's reader where the rows are plain, else in blocks, so that only a block is ever Python objects."""
    plain = _read_plain_jsonl(path)
    if plain is not None:
        return plain
    chunks: list[pa.Table] = []
    names: dict[str, None] = {}
    rows: list[dict[str, str | None]] = []
    numbers: list[int] = []
    for number, row in _json_rows(path, broken):
        rows.append(row)
        numbers.append(number)
        names.update(dict.fromkeys(row))
        if len(rows) == _CHUNK_ROWS:
            chunks.append(_chunk(rows, numbers, list(names)))
            rows, numbers = [], []
    chunks.append(_chunk(rows, numbers, list(names)))
    return pa.concat_tables(chunks, promote_options="default")


def _read_plain_jsonl(path: Path) -> pa.Table | None:
    """One object a line, each column of one type; None for everything else, and for whatever has a mistake."""
    from pyarrow import json as arrow_json

    try:
        table = arrow_json.read_json(path, read_options=arrow_json.ReadOptions(block_size=_BLOCK))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    simple = all(
        pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_float64(kind)
        for kind in table.schema.types
    )  # text that looks like a date comes as a timestamp: not here
    if not simple or not _one_row_a_line(path, table.num_rows):
        return None
    return stringify(table)


def _one_row_a_line(path: Path, rows: int) -> bool:
    """Whether there are as many lines as rows, all of them UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, last = 0, b"\n"
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                return False
            lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n") == rows


def _chunk(rows: list[dict[str, str | None]], numbers: list[int], names: list[str]) -> pa.Table:
    columns: dict[str, Any] = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return pa.table({**columns, LINE: pa.array(numbers, pa.int32())})


def _json_rows(path: Path, broken: Broken | None) -> Iterator[tuple[int, dict[str, str | None]]]:
    problems: Broken = [] if broken is None else broken
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if isinstance(row, dict):
                yield number, {name: json_cell(value, name) for name, value in row.items()}
                continue
            problems.append((number, f"a JSON object is expected, this is {type(row).__name__}"))
        except json.JSONDecodeError as error:
            problems.append((number, f"not JSON: {error.msg} at column {error.colno}"))
        if broken is None and len(problems) == MAX_PROBLEMS:
            break
    if broken is None:
        raise_problems([f"{path}:{number}: {problem}" for number, problem in problems])


def json_cell(value: Any, name: str) -> str | None:
    """A JSON value as the cell that a TSV would hold. NaN, as pandas leaves it for what is missing, is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if name == "word_languages" and isinstance(value, list):
        return " ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False)


# -- Parquet ---------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, broken: Broken | None) -> pa.Table:
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    return stringify(table)


def stringify(table: pa.Table) -> pa.Table:
    """Every column as strings, lists and structs as JSON, and `LINE` with the row's number."""
    columns = {name: _string_column(table.column(name), name) for name in table.column_names}
    return pa.table({**columns, LINE: pa.array(np.arange(1, table.num_rows + 1, dtype=np.int32))})


def _string_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray | pa.Array:
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_nested(kind):
        return pa.array([json_cell(value, name) for value in column.to_pylist()], pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UserError(
            f"column {name!r} holds bytes; read such a dataset with data.dataset, not as a manifest"
        )
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column.cast(pa.string())


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
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        return lambda row: writer.writerow([cell_text(row.get(name)) for name in columns])
    if suffix == ".tsv":
        handle.write("\t".join(columns) + "\n")
        return lambda row: _write_tsv(handle, columns, row)
    raise UserError(f"{suffix or 'no suffix'}: a manifest is written as .tsv, .csv or .jsonl")


def cell_text(value: Any) -> str:
    """A cell as it is written: nothing for None, numbers to the microsecond without trailing zeros."""
    if value is None:
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _write_tsv(handle: TextIO, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    handle.write("\t".join(re.sub(r"[\t\r\n]+", " ", cell_text(row.get(name))) for name in columns) + "\n")


def _write_json(handle: TextIO, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    filled = {name: row[name] for name in columns if row.get(name) is not None}
    handle.write(json.dumps(filled, ensure_ascii=False) + "\n")
