"""Cells of JSON and Parquet as text, and a note of those that were no text: lists, objects, truth values, fractions.

A table of strings forgets what a cell was. Which column may hold what is known only after the columns have our names,
so the readers mark the rows, and `training.data.columns` refuses marked cells where text or a number is expected.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from training.base.errors import UserError
from training.data.column_names import COLUMNS, NUMBERS, STRUCTURED, TEXTS

_MARK = b"not_text:"
_COMMA = b"decimal_comma"


def json_cell(value: Any, name: str) -> str | None:
    """A JSON value as the cell that a TSV would hold. NaN, as pandas leaves it for what is missing, is none.

    ``name`` is our name of the column. Raises ``ValueError`` where it is one of ours whose cells are plain, and
    ``value`` is a list, an object or a truth value, or a number with a fraction in place of a text.
    """
    cell = raw_cell(value, name)
    if cell is not None and is_marked(value, name) and (problem := plain_problem(name, cell)):
        raise ValueError(problem)
    return cell


def raw_cell(value: Any, name: str) -> str | None:
    """`json_cell` for any column: what is no text becomes JSON. Raises `UserError` for bytes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if name in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds(value)
    if name == "word_languages" and isinstance(value, list):
        return " ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, default=lambda inner: _inside(inner, name))


def _seconds(value: int | float) -> str:
    """One spelling for each number, whatever a reader took it for."""
    try:
        return repr(float(value) + 0.0)  # without the sign of -0.0
    except OverflowError:
        return "inf"


def _inside(value: Any, name: str) -> str:
    """A value inside a structure of Parquet that JSON has no word for."""
    if isinstance(value, bytes):
        raise UserError(bytes_problem(name))
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def bytes_problem(name: str) -> str:
    """The message for a column of bytes."""
    return f"column {name!r} holds bytes; read such a dataset with data.dataset, not as a manifest"


def is_marked(value: Any, name: str) -> bool:
    """Whether a cell is to be marked: it is neither text, nor a whole number, nor missing."""
    if isinstance(value, bool):
        return True
    if value is None or isinstance(value, str | int) or name in STRUCTURED:
        return False
    return not isinstance(value, float) or (name not in NUMBERS and not math.isnan(value))


def plain_problem(name: str, cell: str) -> str | None:
    """Why a marked cell cannot be in our column ``name``; None where it can."""
    if name not in COLUMNS or name in STRUCTURED or name in NUMBERS:  # numbers are checked as such
        return None
    shown = cell if len(cell) <= 40 else f"{cell[:40]}…"
    kinds = {"[": "a list", "{": "an object", "t": "a truth value", "f": "a truth value"}
    if cell[:1] in ("[", "{") or cell in ("true", "false"):
        return f"{name}: {shown} is {kinds[cell[:1]]}; text is expected"
    if name in TEXTS:
        return f"{name}: {shown} is stored as a number or a date, and how it was written is not known; store it as text"
    return None


def marks_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Rows whose cell was no text, int32, by the name of the column."""
    found = table.schema.metadata or {}
    return {
        key.removeprefix(_MARK).decode(): np.frombuffer(value, np.int32)
        for key, value in found.items()
        if key.startswith(_MARK)
    }


def with_marks(
    table: pa.Table, marks: Mapping[str, Sequence[int] | np.ndarray], *, decimal_comma: bool = False
) -> pa.Table:
    """The table with these notes in place of those that it has."""
    notes: dict[bytes, bytes] = {
        _MARK + name.encode(): np.asarray(rows, np.int32).tobytes()
        for name, rows in marks.items()
        if len(rows)
    }
    if decimal_comma:
        notes[_COMMA] = b"1"
    return table.replace_schema_metadata(notes or None)


def has_decimal_comma(table: pa.Table) -> bool:
    """Whether numbers may be written as 1,5 (in tables whose cells are separated by semicolons)."""
    return _COMMA in (table.schema.metadata or {})


def renamed(table: pa.Table, names: Sequence[str], rename: Callable[[str], str]) -> pa.Table:
    """The columns ``names`` under the names that ``rename`` gives; the notes go with them."""
    marks = {rename(name): rows for name, rows in marks_of(table).items() if name in names}
    chosen = table.select(list(names)).rename_columns([rename(name) for name in names])
    return with_marks(chosen, marks, decimal_comma=has_decimal_comma(table))
