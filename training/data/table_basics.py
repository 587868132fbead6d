"""Shared by the readers of all kinds of tables: the line column, lists of problems, decoded lines."""

from __future__ import annotations

import codecs
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from training.base.errors import UserError

MAX_PROBLEMS = 20
"""Problems that are collected before a file is refused."""
LINE = "__line__"
"""Internal column: the line of the file (the row, in Parquet) that a row came from, counted from 1."""
BLOCK = 1 << 24
"""Bytes that are read at once."""

Broken = list[tuple[int, str]]
"""Lines and what is wrong with the row that starts there."""

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins as the mark of UTF-16 does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def raise_problems(problems: list[str], more: int = 0) -> None:
    """`UserError` with all ``problems`` (already ``file:line: what``), nothing when there are none."""
    if problems:
        tail = f"\n… and {more:,} more" if more > 0 else ""
        raise UserError("\n".join(problems[:MAX_PROBLEMS]) + tail)


def check_names(path: Path, names: list[str], line: int = 1) -> None:
    """`UserError` for column names that are empty, that come twice, or that this library uses inside."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}:{line}: the column {name!r} appears {names.count(name)} times")
    if "" in names:
        raise UserError(f"{path}:{line}: column {names.index('') + 1} has no name")
    check_reserved(path, names, line)


def check_reserved(path: Path, names: list[str], line: int = 1) -> None:
    """`UserError` for a column that has the name of an internal one."""
    if LINE in names:
        raise UserError(f"{path}:{line}: the column name {LINE!r} is used inside this library; rename it")


def check_bytes(path: Path) -> None:
    """`UserError` for UTF-16 and UTF-32, and for NUL bytes, which no text table holds."""
    with path.open("rb") as handle:
        head = handle.read(4)
    if named := [encoding for mark, encoding in _MARKS.items() if head.startswith(mark)]:
        raise UserError(f"{path}:1: the file is {named[0]}; save it as UTF-8{_converted(path, named[0])}")
    place = first_match(path, rb"\x00")
    if place is not None:
        raise UserError(
            f"{path}:{place}: the line holds a NUL byte: the file is UTF-16 without a byte order mark, or damaged; "
            "save it as UTF-8"
        )


def first_match(path: Path, pattern: bytes) -> int | None:
    """The line of the first match of ``pattern``; None where there is none."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(pattern, content)
        place = None if found is None else found.start()
        del found  # it holds on to the mapping
        return None if place is None else count(content, b"\n", place) + 1


def count(content: mmap.mmap, byte: bytes, end: int | None = None) -> int:
    """How often ``byte`` is in the first ``end`` bytes (in all of them)."""
    stop = len(content) if end is None else end
    return sum(content[at : min(at + BLOCK, stop)].count(byte) for at in range(0, stop, BLOCK))


def decoded(path: Path, line: bytes, number: int) -> str:
    """A line as text; the byte order mark of the first one is left out. `UserError` where it is not UTF-8."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path, line, number, error.start)) from error


def _not_utf8(path: Path, line: bytes, number: int, at: int) -> str:
    """The message for a line that is not UTF-8, with what it would be in Windows-1252."""
    message = f"{path}:{number}: not UTF-8 (byte 0x{line[at]:02x} at column {at + 1}); save the file as UTF-8"
    around = line[max(0, at - 10) : at + 10]
    try:
        text = around.decode("cp1252").strip()
    except UnicodeDecodeError:
        return message
    return f"{message}. If it is Windows-1252 ({text!r}){_converted(path, 'WINDOWS-1252', ':')}"


def _converted(path: Path, encoding: str, sign: str = ", for example with") -> str:
    return f"{sign} iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}_utf8{path.suffix}"


def lines(path: Path, *, offset: int = 0, first: int = 1) -> Iterator[str]:
    """Decoded lines with their ends, from byte ``offset``, which is where line ``first`` starts.

    Only LF ends a line. `UserError` names the line that is not UTF-8.
    """
    with path.open("rb") as handle:
        handle.seek(offset)
        for number, line in enumerate(handle, first):
            yield decoded(path, line, number)
