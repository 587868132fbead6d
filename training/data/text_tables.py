"""TSV and CSV. Arrow reads what is certainly well formed; everything else is read, or refused, by the strict reader.

CSV is quoted as RFC 4180 has it. Its cells are separated by what its header line shows: commas, semicolons (as Excel
writes them in many countries), tabs, or what a first line ``sep=;`` says.
"""

from __future__ import annotations

import codecs
import csv
import mmap
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.data import table_basics
from training.data.cells import with_marks
from training.data.column_names import known
from training.data.table_basics import (
    LINE,
    MAX_PROBLEMS,
    Broken,
    check_bytes,
    check_names,
    count,
    decoded,
    first_match,
    lines,
    raise_problems,
)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may separate the cells of a CSV, the usual one first."""

_CELL_LIMIT = 1 << 24
_CHUNK_ROWS = 50_000
_QUOTED = r'^"(?:[^"]|"")*""(?:[^"]|"")*"$'
_STATED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_LONE_RETURN = rb"\r(?!\n)"


@dataclass(frozen=True)
class Layout:
    """How a file is read: ``offset`` bytes and ``line`` lines come before the first row."""

    delimiter: str
    quoted: bool
    header: list[str]
    offset: int
    line: int


def read_text(path: Path, broken: Broken | None) -> pa.Table:
    """The table of a TSV or CSV: strings and `LINE`. Raises `UserError` with ``file:line``."""
    check(path)
    layout = layout_of(path)
    table = read_fast(path, layout, broken)
    if table is None:
        if broken is not None:
            broken.clear()
        table = read_strict(path, layout, broken)
    if not layout.quoted:
        table = _unquoted(table)
    return with_marks(table, {}, decimal_comma=layout.delimiter == ";")


def check(path: Path) -> None:
    """Refuse what one reader would take for something else than the other: no bytes, UTF-16, NUL, old line ends."""
    if path.stat().st_size == 0:
        raise UserError(f"{path}:1: the file is empty; the first line names the columns")
    check_bytes(path)
    if _is_tsv(path) and (line := first_match(path, _LONE_RETURN)):
        raise UserError(f"{path}:{line}: a carriage return inside the line; lines end in LF or CR LF")


def _is_tsv(path: Path) -> bool:
    return path.suffix.lower() == ".tsv"


# -- the header ------------------------------------------------------------------------------------------------


def layout_of(path: Path) -> Layout:
    """What separates the cells, and where the rows begin; an unusual separator is reported on stderr."""
    with path.open("rb") as handle:
        first = handle.readline()
    stated = _STATED.fullmatch(decoded(path, first, 1).strip("\r\n"))
    offset, line = (len(first), 1) if stated else (0, 0)
    if _is_tsv(path):
        if stated and stated[1] != "\t":
            raise UserError(
                f"{path}:1: {stated[0]} in a .tsv, whose cells are separated by tabs; rename the file to .csv"
            )
        return _layout(path, "\t", False, offset, line)
    if stated and stated[1] not in SEPARATORS:
        names = ", ".join(SEPARATORS.values())
        raise UserError(f"{path}:1: {stated[0]}: cells are separated by {names}, not by {stated[1]!r}")
    layout = _layout(path, stated[1], True, offset, line) if stated else _detected(path)
    if layout.delimiter != ",":
        why = f"as {stated[0]!r} in line 1 says" if stated else "as the header shows"
        print(f"{path}: cells are separated by {SEPARATORS[layout.delimiter]}, {why}", file=sys.stderr)
    return layout


def _detected(path: Path) -> Layout:
    """By the header: the separator that gives most of the known names, then most columns, then the usual one."""
    found: list[Layout] = []
    refused: list[UserError] = []
    for delimiter in SEPARATORS:
        try:
            found.append(_layout(path, delimiter, True, 0, 0, check=False))
        except UserError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    best = max(found, key=lambda layout: (known(layout.header), len(layout.header)))
    check_names(path, best.header, 1)
    return best


def _layout(path: Path, delimiter: str, quoted: bool, offset: int, line: int, check: bool = True) -> Layout:
    """The header that starts after ``offset`` bytes and ``line`` lines."""
    taken: list[int] = []

    def counted() -> Iterator[str]:
        with path.open("rb") as handle:
            handle.seek(offset)
            for number, raw in enumerate(handle, line + 1):
                taken.append(len(raw))
                yield decoded(path, raw, number)

    rows = _split(path, counted(), delimiter, quoted, line + 1)
    number, cells = next(rows, (0, []))
    if number != line + 1:
        raise UserError(f"{path}:{line + 1}: the first line is blank; it must name the columns")
    header = [name.strip() for name in cells]
    if check:
        check_names(path, header, line + 1)
    return Layout(delimiter, quoted, header, offset + sum(taken), line + len(taken))


# -- the strict reader -----------------------------------------------------------------------------------------


def rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """``(line on which the row starts, cells)``, blank lines left out. `UserError` where quotes are not closed."""
    text = lines(path, offset=layout.offset, first=layout.line + 1)
    return _split(path, text, layout.delimiter, layout.quoted, layout.line + 1)


def _split(
    path: Path, text: Iterator[str], delimiter: str, quoted: bool, first: int
) -> Iterator[tuple[int, list[str]]]:
    if not quoted:
        for number, line in enumerate(text, first):
            if body := line.rstrip("\r\n"):
                yield number, body.split(delimiter)
        return
    csv.field_size_limit(_CELL_LIMIT)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    start = first
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = first + reader.line_num
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: the row that starts here is not as RFC 4180 has it: {_csv_reason(error)}"
        ) from error


def _csv_reason(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "a carriage return outside quotes; lines end in LF or CR LF"
    if "unexpected end of data" in str(error):
        return "a quote that is opened in it is never closed"
    if "expected after" in str(error):
        return (
            "text after a closing quote; a cell that begins with a quote is quoted as a whole, and quotes inside it "
            'are doubled: """hello"" he said"'
        )
    return str(error)


def read_strict(path: Path, layout: Layout, broken: Broken | None) -> pa.Table:
    """All rows, through Python. `UserError` names the lines whose number of cells is not that of the header."""
    width, problems = len(layout.header), []
    chunks, cells, numbers = [], [], []
    for number, row in rows(path, layout):
        if len(row) != width:
            problems.append((number, f"{len(row)} cells, the header names {width} columns"))
            if broken is None and len(problems) == MAX_PROBLEMS:
                break
            continue
        cells.append(row)
        numbers.append(number)
        if len(cells) == _CHUNK_ROWS:
            chunks.append(_chunk(layout.header, cells, numbers))
            cells, numbers = [], []
    if broken is None:
        raise_problems([f"{path}:{number}: {what}" for number, what in problems])
    else:
        broken.extend(problems)
    return pa.concat_tables([*chunks, _chunk(layout.header, cells, numbers)])


def _chunk(header: list[str], cells: list[list[str]], numbers: list[int]) -> pa.Table:
    columns = zip(*cells, strict=True) if cells else [()] * len(header)
    made = {name: pa.array(column, pa.string()) for name, column in zip(header, columns, strict=True)}
    return pa.table({**made, LINE: pa.array(numbers, pa.int32())})


# -- Arrow's reader --------------------------------------------------------------------------------------------


def read_fast(path: Path, layout: Layout, broken: Broken | None) -> pa.Table | None:
    """The same with Arrow; None where it refuses the file, or might read something else than the strict reader."""
    from pyarrow import csv as arrow_csv

    if _begins_with_mark(path, layout) or (layout.quoted and not _well_quoted(path, layout)):
        return None
    try:
        with pa.memory_map(str(path)) as source:
            source.seek(layout.offset)
            table = arrow_csv.read_csv(
                source,
                read_options=arrow_csv.ReadOptions(column_names=layout.header, block_size=table_basics.BLOCK),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.delimiter,
                    quote_char='"' if layout.quoted else False,
                    newlines_in_values=layout.quoted,
                    invalid_row_handler=None if broken is None else lambda row: "skip",
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(layout.header, pa.string()), strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid:
        return None
    found = _line_numbers(path, table.num_rows, layout, broken)
    return None if found is None else table.append_column(LINE, pa.array(found))


def _begins_with_mark(path: Path, layout: Layout) -> bool:
    """Whether the first row begins with a byte order mark, which Arrow would leave out."""
    with path.open("rb") as handle:
        handle.seek(layout.offset)
        return handle.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _well_quoted(path: Path, layout: Layout) -> bool:
    """Whether every cell is as RFC 4180 has it, so that Arrow, which forgives much, has nothing to forgive."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _well_formed(layout.delimiter)(content, layout.offset)
        end = found.end() if found else -1
        del found  # it holds on to the mapping
        return end == len(content)


def _well_formed(delimiter: str) -> Callable[..., re.Match[bytes] | None]:
    d = re.escape(delimiter).encode()
    # Not a carriage return in quotes: where it ends one of Arrow's blocks, the line feed behind it is lost.
    cell = rb'(?:"(?:[^"\r]++|"")*+"|[^"\r\n%b][^\r\n%b]*+|)' % (d, d)
    return partial(re.compile(rb"(?:%b(?:%b|\r?\n))*+%b" % (cell, d, cell)).match)


def _line_numbers(path: Path, total: int, layout: Layout, broken: Broken | None) -> np.ndarray | None:
    """Line of each row, int32 ``[rows]``: counted up where no blank line or line break in a cell can be there.

    None where the strict reader counts other rows.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        there = count(content, b"\n") + (content[-1:] != b"\n") - layout.line
    if there == total:
        return np.arange(layout.line + 1, layout.line + 1 + total, dtype=np.int32)
    starts, width = [], len(layout.header)
    for number, cells in rows(path, layout):
        if broken is None or len(cells) == width:
            starts.append(number)
        else:
            broken.append((number, f"{len(cells)} cells, the header names {width} columns"))
    return np.array(starts, dtype=np.int32) if len(starts) == total else None


def _unquoted(table: pa.Table) -> pa.Table:
    """Undo the quoting of cells like ``"[[""word"", 0, 1]]"``, which Python's csv module writes into a TSV."""
    for at, name in enumerate(table.column_names):
        if name == LINE:
            continue
        column = table.column(at)
        quoted = pc.match_substring_regex(column, _QUOTED)
        if pc.any(quoted).as_py():
            inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
            table = table.set_column(at, name, pc.if_else(quoted, inner, column))
    return table
