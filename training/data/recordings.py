"""Which utterances follow each other in one recording."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.data.amounts import cells
from training.data.manifest import TEXT_COLUMNS

COLUMNS = ("recording", "group", "video_id", "talk")
"""Columns that name the recording of an utterance; the first one that holds anything counts."""
POSITION = "position"
"""Column with a number by which the utterances of a recording are ordered."""
_ALIKE = ("language", "target_language", "domain")


def sequences(rows: Any) -> list[list[int]]:
    """Rows that follow each other in one recording, each row in one list.

    The recording is named by the first of `COLUMNS` that the table fills; without any of them, clips that are stretches
    of one file (columns ``start`` and ``end``) are of one recording. The order is that of the column ``position``; else
    of ``start``, where all clips of the recording lie in one file; else that of the table. A list ends where the language
    or the domain changes, or where a row has other texts (a transcript without its translation): such neighbours are not
    one sample.

    Args:
        rows: a source of utterances, as `training.data.manifest.Manifest`.

    Returns:
        Lists of row numbers; empty where nothing names a recording.

    Raises:
        UserError: a cell of ``position`` is no number.
    """
    recordings = names(rows)
    if recordings is None:
        return []
    alike = _likeness(rows)
    members: dict[str, list[int]] = {}
    alone: list[list[int]] = []
    for row, name in enumerate(recordings):
        if name:
            members.setdefault(name, []).append(row)
        else:
            alone.append([row])
    ordered = _order(rows)
    return [part for found in members.values() for part in _cut(ordered(found), alike)] + alone


def before(rows: int, found: Sequence[Sequence[int]]) -> np.ndarray:
    """The row that comes before each row in its recording, -1 where none does: int64 ``[rows]``."""
    result = np.full(rows, -1, dtype=np.int64)
    for sequence in found:
        for earlier, later in pairwise(sequence):
            result[later] = earlier
    return result


def names(rows: Any) -> list[str] | None:
    """The recording of each row, "" where a row names none; None where nothing names any."""
    there = set(rows.column_names)
    for name in COLUMNS:
        if name in there and any(found := rows.column(name)):
            return [str(cell) if cell is not None else "" for cell in found]
    if {"start", "end", "audio_path"} <= there:
        return _joined_cells(rows, ("audio_path", "channel"))
    return None


def _likeness(rows: Any) -> list[str]:
    """What has to be equal of neighbours, as one text per row."""
    texts = [["1" if cell else "0" for cell in cells(rows, name)] for name in TEXT_COLUMNS.values()]
    return ["\x1f".join(parts) for parts in zip(_joined_cells(rows, _ALIKE), *texts, strict=True)]


def _joined_cells(rows: Any, names: Sequence[str]) -> list[str]:
    columns = [[str(cell or "") for cell in cells(rows, name)] for name in names]
    return ["\x1f".join(parts) for parts in zip(*columns, strict=True)]


def _order(rows: Any) -> Any:
    """A function that sorts the rows of one recording."""
    if POSITION in rows.column_names:
        places = [_number(rows, row, cell) for row, cell in enumerate(rows.column(POSITION))]
        return lambda found: sorted(found, key=lambda row: places[row])
    starts: list[Any] = cells(rows, "start")
    paths = cells(rows, "audio_path")

    def by_start(found: list[int]) -> list[int]:
        one_file = len({paths[row] for row in found}) == 1
        if one_file and all(starts[row] is not None for row in found):
            return sorted(found, key=lambda row: starts[row])
        return found

    return by_start


def _number(rows: Any, row: int, cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise UserError(
            f"{rows[row].source}: {POSITION}: {cell!r} is no number; it is the place of the clip in its recording "
            "(leave the column out where the table is in order)"
        ) from None


def _cut(ordered: Sequence[int], alike: Sequence[str]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for row in ordered:
        if parts[-1] and alike[parts[-1][-1]] != alike[row]:
            parts.append([])
        parts[-1].append(row)
    return parts
