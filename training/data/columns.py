"""From a table of strings to the columns of a manifest: our names, numbers, an id for every row.

Everything is computed on whole columns; only mistakes are looked at one by one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.data.cells import has_decimal_comma, marks_of, plain_problem, renamed
from training.data.column_names import COLUMNS, NUMBERS, STRUCTURED, TEXTS, guess
from training.data.missing import MARKERS
from training.data.sound.channel import COLUMN, cell_channel, channel_problems
from training.data.tables import LINE, MAX_PROBLEMS, raise_problems

CONFIGURATION = "data.columns."
DATASET_COLUMNS = "data.dataset.columns."
COMMAND = "--column "
"""How a user gives a column another name: a key of the configuration, or an option of a command."""

REQUIRED = ("audio_path", "duration")


class Problems:
    """Mistakes of one file, in the order of its lines."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path = path
        self.lines = table.column(LINE)
        self.found: list[tuple[int, str]] = []
        self.count = 0

    def add(self, row: int, message: str) -> None:
        self.count += 1
        if len(self.found) < 10 * MAX_PROBLEMS:
            self.found.append((self.lines[row].as_py(), message))

    def add_rows(self, mask: pa.ChunkedArray | pa.Array, describe: Callable[[int], str]) -> None:
        """A problem for every row where ``mask`` is true; ``describe(row)`` says which."""
        rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        for row in rows[:MAX_PROBLEMS]:
            self.add(int(row), describe(int(row)))
        self.count += max(0, len(rows) - MAX_PROBLEMS)

    def done(self) -> None:
        """Raise what was found."""
        shown = [f"{self.path}:{line}: {message}" for line, message in sorted(self.found)[:MAX_PROBLEMS]]
        raise_problems(shown, more=self.count - len(shown))


def column_names(pairs: Sequence[str]) -> dict[str, str]:
    """``OURS=THEIRS`` of a command line to ours → theirs. Raises `UserError`."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise UserError(f"--column {wrong[0]}: expected OURS=THEIRS, such as transcript=sentence")
    return dict(pair.split("=", 1) for pair in pairs)


def rename(table: pa.Table, columns: Mapping[str, str], path: Path) -> pa.Table:
    """Give the file's columns our names."""
    for ours, theirs in columns.items():
        if ours not in COLUMNS:
            near = difflib.get_close_matches(ours, COLUMNS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(COLUMNS)})"
            raise UserError(f"data.columns.{ours}: not a column of ours{hint}")
        if theirs not in table.column_names:
            raise UserError(f"{path}:1: data.columns.{ours}: {_missing(theirs, table)}")
    names = {theirs: ours for ours, theirs in columns.items()}
    kept = [name for name in table.column_names if name in names or name not in columns]
    return renamed(table, kept, lambda name: names.get(name, name))


def _missing(name: str, table: pa.Table) -> str:
    there = _named(table)
    near = guess(name, there) or next(iter(difflib.get_close_matches(name, there, n=1)), None)
    hint = f"; did you mean {near!r}?" if near else ""
    if len(there) == 1 and any(sign in there[0] for sign in ",;"):
        hint = "; the header holds no tab: in a .tsv tabs separate the cells; rename the file to .csv"
    elif any(column.startswith('"') for column in there):
        hint = "; a .tsv is read without quoting: write it without quotes, or as .csv"
    return f"the column {name!r} is missing{hint} (there are: {', '.join(there)})"


def _named(table: pa.Table) -> list[str]:
    return [column for column in table.column_names if column != LINE]


def no_column(name: str, there: Sequence[str], option: str) -> str:
    """The message for a column that is not there: what there is, a guess, and the option that names it.

    ``option`` is what stands before ``transcript=text``: `CONFIGURATION`, or `COMMAND`.
    """
    near = guess(name, there)
    if near is not None and near != name:
        advice = f"if that is {near!r}, add {option}{name}={near}"
    else:
        advice = f"if it has another name, add {option}{name}=NAME"
    return f"there is no column {name!r}; {advice} (there are: {', '.join(there)})"


def check_columns(
    table: pa.Table,
    path: Path,
    require: Sequence[str],
    *,
    option: str = CONFIGURATION,
    need_duration: bool = True,
    need_text: bool = False,
) -> None:
    """`UserError` that names every column that is missing, what it may be called here, and the option that says so.

    ``need_text``: a transcript or a translation. ``option``: see `no_column`.
    """
    there = _named(table)
    has_times = {"start", "end"} <= set(there)
    needed = [
        name
        for name in dict.fromkeys((*REQUIRED, *require))
        if name != "duration" or (need_duration and not has_times)
    ]
    if need_text and not set(TEXTS) & {*there, *needed}:
        needed.append(TEXTS[0])
    missing = [name for name in needed if name not in there]
    raise_problems([f"{path}:1: {_missing(name, table)}{_advice(name, there, option)}" for name in missing])


def _advice(name: str, there: Sequence[str], option: str) -> str:
    near = guess(name, there)
    return f"; add {option}{name}={near or 'NAME'}" + ("" if near else ", if it has another name")


def check_cells(table: pa.Table, problems: Problems) -> pa.Table:
    """A problem for every list, object, truth value or fraction where our column holds text; the notes are taken off.

    Lists in ``word_languages`` become tags separated by spaces.
    """
    for name, rows in marks_of(table).items():
        if name in COLUMNS and name not in STRUCTURED:
            column = table.column(name)
            for row in rows:
                if problem := plain_problem(name, column[int(row)].as_py()):
                    problems.add(int(row), problem)
        elif name == "word_languages":
            cells = [_tags(cell) for cell in table.column(name).to_pylist()]
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(cells, pa.string()))
    return table


def _tags(cell: str | None) -> str | None:
    """A list of tags that another column name hid from the reader, as its own column has them."""
    if cell is None or not cell.startswith("["):
        return cell
    return " ".join(map(str, json.loads(cell)))


def with_length(table: pa.Table) -> pa.Table:
    """A duration column for tables of segments that state only ``start`` and ``end``."""
    if "duration" in table.column_names:
        return table
    return table.append_column("duration", pa.nulls(len(table), pa.string()))


def with_numbers(table: pa.Table, problems: Problems, *, need_duration: bool = True) -> pa.Table:
    """Durations and times as float64; a cell that is no number, or an impossible one, is a problem.

    Empty cells, and those that only say that nothing is known (`training.data.missing.MARKERS`), are null. Without
    ``need_duration`` a row may leave its duration to the file's header.
    """
    for name in NUMBERS:
        if name in table.column_names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, _numbers(table, name, problems))
    if "end" in table.column_names:
        start = pc.fill_null(table.column("start"), 0.0) if "start" in table.column_names else 0.0
        problems.add_rows(
            pc.less_equal(table.column("end"), start),
            lambda row: f"end: {table.column('end')[row].as_py():g} s is not after the start",
        )
        length = pc.subtract(table.column("end"), start)
        at = table.column_names.index("duration")
        table = table.set_column(at, "duration", pc.coalesce(table.column("duration"), length))
    if "start" in table.column_names:
        problems.add_rows(pc.less(table.column("start"), 0.0), lambda row: "start: less than 0 s")
    _check_durations(table, problems, need_duration)
    return table


def _check_durations(table: pa.Table, problems: Problems, need_duration: bool) -> None:
    duration = table.column("duration")
    if need_duration:
        problems.add_rows(
            pc.is_null(duration, nan_is_null=False),
            lambda row: (
                "duration: no number of seconds in this row; polyvox preprocess reads it from the file's header"
            ),
        )
    problems.add_rows(
        pc.less_equal(duration, 0.0), lambda row: f"duration: {duration[row].as_py():g} s; it must be above 0"
    )
    problems.add_rows(
        pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(table.column("audio_path"), ""))), 0),
        lambda row: "audio_path: empty",
    )


def _numbers(table: pa.Table, name: str, problems: Problems) -> pa.ChunkedArray:
    """Strings to float64; empty cells become null, cells that are no finite number a problem (and 1.0)."""
    trimmed = pc.utf8_trim_whitespace(table.column(name))
    given = (
        pc.replace_substring_regex(trimmed, r"^([+-]?\d+),(\d+)$", r"\1.\2")
        if has_decimal_comma(table)
        else trimmed
    )
    nothing = pc.is_in(given, value_set=pa.array(["", "-", *sorted(MARKERS)]))
    given = pc.if_else(nothing, pa.scalar(None, pa.string()), given)
    try:
        values = pc.cast(given, pa.float64())
    except pa.ArrowInvalid:
        values = pa.chunked_array(
            [pa.array([_float_or_nan(cell) for cell in given.to_pylist()], pa.float64())]
        )
    wrong = pc.invert(pc.is_finite(values))
    problems.add_rows(wrong, lambda row: f"{name}: {trimmed[row].as_py()!r} is not a number of seconds")
    return pc.if_else(pc.fill_null(wrong, False), 1.0, values)


def _float_or_nan(cell: str | None) -> float | None:
    if cell is None:
        return None
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def with_id(table: pa.Table, problems: Problems) -> pa.Table:
    """An ``id`` for every row (the audio path, and the start where one is set) and none twice."""
    made = _made_ids(table)
    if "id" in table.column_names:
        given = pc.utf8_trim_whitespace(table.column("id"))
        given = pc.if_else(pc.equal(given, ""), pa.scalar(None, pa.string()), given)
        table = table.set_column(table.column_names.index("id"), "id", pc.coalesce(given, made))
    else:
        table = table.append_column("id", made)
    if pc.count_distinct(table.column("id")).as_py() != table.num_rows:
        _report_duplicates(table, problems)
    return table


def check_channels(table: pa.Table, problems: Problems) -> None:
    if COLUMN in table.column_names:
        for row, problem in channel_problems(table.column(COLUMN).to_pylist()).items():
            problems.add(row, problem)


def _made_ids(table: pa.Table) -> pa.ChunkedArray:
    """The audio path, its start and its channel, as far as they are stated."""
    place = _made_places(table)
    if COLUMN not in table.column_names:
        return place
    channels = [cell_channel(cell) for cell in table.column(COLUMN).to_pylist()]
    numbers = pa.array([None if one is None else f"{one}" for one in channels], pa.string())
    return pc.coalesce(pc.binary_join_element_wise(place, numbers, "#"), place)


def _made_places(table: pa.Table) -> pa.ChunkedArray:
    path = pc.replace_substring(
        pc.utf8_trim_whitespace(pc.fill_null(table.column("audio_path"), "")), "\\", "/"
    )
    if "start" not in table.column_names:
        return path
    return pc.if_else(
        pc.is_valid(table.column("start")),
        pc.binary_join_element_wise(path, pc.cast(table.column("start"), pa.string()), "@"),
        path,
    )


def _report_duplicates(table: pa.Table, problems: Problems) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(table.column("id").to_pylist()):
        before = first.setdefault(name, row)
        if before != row:
            line = table.column(LINE)[before].as_py()
            problems.add(row, f"id: {name!r} is the id of line {line} too; every utterance needs its own")


def check_word_languages(table: pa.Table, problems: Problems) -> None:
    if not {"word_languages", "transcript"} <= set(table.column_names):
        return
    tags, words = _count_words(table.column("word_languages")), _count_words(table.column("transcript"))
    wrong = pc.and_(pc.greater(tags, 0), pc.not_equal(tags, words))
    problems.add_rows(
        wrong,
        lambda row: (
            f"word_languages: {tags[row].as_py()} tags for the {words[row].as_py()} words of the transcript; tags of "
            "cleaned text need it cleaned first (polyvox preprocess)"
        ),
    )


def _count_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    counts = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
    return pc.if_else(pc.equal(trimmed, ""), 0, counts)
