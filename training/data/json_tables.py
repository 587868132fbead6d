"""JSONL: one object a line. Arrow reads what is plain; the careful reader reads everything else, and names mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data.cells import is_marked, raw_cell, with_marks
from training.data.column_names import NUMBERS
from training.data.table_basics import (
    BLOCK,
    LINE,
    MAX_PROBLEMS,
    Broken,
    check_bytes,
    check_reserved,
    lines,
    raise_problems,
)

_CHUNK_ROWS = 50_000
_SPACE = b" \t\r\n"
_DEEPEST = 200
"""Brackets in one line that Arrow may be given: its reader ends the whole process where thousands are nested."""


def read_jsonl(path: Path, broken: Broken | None) -> pa.Table:
    """With Arrow's reader where the rows are plain, else in blocks, so that only a block is ever Python objects."""
    check_bytes(path)
    plain = read_plain(path)
    return plain if plain is not None else read_careful(path, broken)


def read_plain(path: Path) -> pa.Table | None:
    """One object a line, each column of one type; None for everything else, and for whatever has a mistake."""
    tables = []
    with path.open("rb") as handle:
        while lines := handle.readlines(BLOCK):
            table = _plain_stretch(lines)
            if table is None:
                return None
            tables.append(table)
    try:
        table = pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # no lines; a column of numbers here and of text there
        return None
    if LINE in table.column_names:
        return None
    columns = {name: _plain_column(table.column(name), name) for name in table.column_names}
    if any(column is None for column in columns.values()):
        return None
    return pa.table({**columns, LINE: pa.array(np.arange(1, table.num_rows + 1, dtype=np.int32))})


def _plain_stretch(lines: list[bytes]) -> pa.Table | None:
    """Some lines as Arrow reads them, one row each; None where it refuses them, or might take them for something else.

    They are one block of Arrow's: beside the text of a block it makes text of the numbers of the next one. Arrow looks
    at no line ends, so with as many rows as lines no row is in two lines, nor two in one.
    """
    from pyarrow import json as arrow_json

    if not all(map(_is_object, lines)):
        return None
    content = b"".join(lines)
    try:
        options = arrow_json.ReadOptions(block_size=len(content) + 1)
        table = arrow_json.read_json(pa.BufferReader(content), read_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table if table.num_rows == len(lines) else None


def _plain_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray | None:
    """The cells as the careful reader has them; None where Arrow's type does not tell how they were written.

    Text that looks like a date comes as a timestamp, 1 beside 2.5 as 1.0, and Infinity has two spellings.
    """
    if pa.types.is_string(column.type):
        return column
    if name in NUMBERS and (pa.types.is_int64(column.type) or pa.types.is_float64(column.type)):
        numbers = column.cast(pa.float64(), safe=False)
        if pc.all(pc.is_finite(numbers)).as_py() is not False:
            return pa.chunked_array(
                [
                    pa.array([raw_cell(n, name) for n in part.to_pylist()], pa.string())
                    for part in numbers.chunks
                ],
                pa.string(),
            )
        return None
    return column.cast(pa.string()) if pa.types.is_int64(column.type) else None


def _is_object(line: bytes) -> bool:
    """Whether a line is UTF-8, begins and ends as an object does, and nests no more than Arrow can bear."""
    body = line.strip(_SPACE)
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    brackets = line.count(b"{") + line.count(b"[")
    return body[:1] == b"{" and body[-1:] == b"}" and brackets <= _DEEPEST


@dataclass
class _Block:
    """Rows that are still Python objects, and the marks of the whole file."""

    rows: list[dict[str, str | None]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    marks: dict[str, list[int]] = field(default_factory=dict)
    chunks: list[pa.Table] = field(default_factory=list)
    total: int = 0

    def add(self, number: int, row: dict[str, Any]) -> None:
        cells = {name: raw_cell(value, name) for name, value in row.items()}
        for name, value in row.items():
            if is_marked(value, name):
                self.marks.setdefault(name, []).append(self.total)
        self.rows.append(cells)
        self.numbers.append(number)
        self.names.update(dict.fromkeys(cells))
        self.total += 1
        if len(self.rows) == _CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        columns: dict[str, Any] = {
            name: pa.array([row.get(name) for row in self.rows], pa.string()) for name in self.names
        }
        self.chunks.append(pa.table({**columns, LINE: pa.array(self.numbers, pa.int32())}))
        self.rows, self.numbers = [], []

    def table(self) -> pa.Table:
        self.flush()
        whole = pa.concat_tables(self.chunks, promote_options="default")
        return with_marks(whole.select([*self.names, LINE]), self.marks)


def read_careful(path: Path, broken: Broken | None) -> pa.Table:
    """Any JSONL; `UserError` for what is none (``broken`` takes such lines instead)."""
    block = _Block()
    for number, row in _rows(path, broken):
        block.add(number, row)
    check_reserved(path, list(block.names))
    return block.table()


def _rows(path: Path, broken: Broken | None) -> Iterator[tuple[int, dict[str, Any]]]:
    problems: Broken = [] if broken is None else broken
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json_object(line)
        except ValueError as error:
            problems.append((number, str(error)))
        else:
            yield number, row
        if broken is None and len(problems) == MAX_PROBLEMS:
            break
    if broken is None:
        raise_problems([f"{path}:{number}: {problem}" for number, problem in problems])


def json_object(text: str) -> dict[str, Any]:
    """The one object of a text. Raises ``ValueError`` for anything else, also for a key that comes twice."""
    row = json_value(text)
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is expected, this is {type(row).__name__}")
    if "\\u" in text:
        _check_surrogates(row)
    return row


def json_value(text: str) -> Any:
    """``json.loads`` whose ``ValueError`` says what is wrong, also where a key comes twice or too much is nested."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"not JSON: {error.msg} at {where}") from error
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice; which of its values is meant?")
    return row


def _check_surrogates(row: dict[str, Any]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            "not JSON text: half of a surrogate pair (\\ud800 to \\udfff) stands alone"
        ) from error
