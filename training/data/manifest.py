"""Manifests: tables of utterances on disk, held in Arrow and turned into an `Example` when one is asked for."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data import audio
from training.data.derived import sha256
from training.data.example import TRANSCRIBE, TRANSLATE, AudioRef, Example, Word
from training.data.tables import LINE, MAX_PROBLEMS, raise_problems, read_table
from training.errors import UserError

COLUMNS = (
    "id", "video_id", "audio_path", "duration", "transcript", "translation", "start", "end", "speaker", "language",
    "target_language", "domain", "group", "words", "word_languages", "split", "split_hint",
)  # fmt: skip
"""The columns that the library knows. Others are carried along and read through `Manifest.column`."""
TEXT_COLUMNS = {TRANSCRIBE: "transcript", TRANSLATE: "translation"}
NUMBERS = ("duration", "start", "end")
REQUIRED = ("audio_path", "duration")

_SPOOL_BYTES = 1 << 24
_TEXT_BATCH = 10_000


def load_manifest(
    path: Path,
    *,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    check_files: bool = False,
    require: Sequence[str] = (),
    check_words: bool = True,
) -> Manifest:
    """Read a manifest: TSV, CSV (RFC 4180), JSONL or Parquet, told by the suffix.

    Relative audio paths start from the manifest's folder; with ``audio_root`` they are looked up there first.
    ``columns`` maps our names to the file's. ``require`` names columns that must be there beside the audio
    path and the duration. ``check_files`` looks whether every audio file is there. ``check_words`` refuses
    ``word_languages`` that do not count as many words as their transcript.

    Raises `UserError` with up to 20 problems, each as ``file:line: what is wrong``.
    """
    path = Path(path)
    table = _rename(read_table(path), columns or {}, path)
    return from_table(
        table, path, audio_root=audio_root, check_files=check_files, require=require, check_words=check_words
    )


def from_table(
    table: pa.Table,
    path: Path,
    *,
    audio_root: Path | None = None,
    check_files: bool = False,
    require: Sequence[str] = (),
    check_words: bool = True,
) -> Manifest:
    """The manifest of a table of strings (`training.data.tables.read_table`) with our column names."""
    _check_columns(table, path, require)
    problems = _Problems(path, table)
    table = _with_numbers(_with_length(table), problems)
    table = _with_id(table, problems)
    if check_words:
        _check_word_languages(table, problems)
    manifest = Manifest(table.combine_chunks(), path, Path(audio_root) if audio_root is not None else None)
    if check_files:
        _check_files(manifest, problems)
    problems.done()
    return manifest


class Manifest(Sequence[Example]):
    """The utterances of one file. Rows lie in Arrow memory; an `Example` is made on access.

    Cheap to send to worker processes: a large table is written once to a temporary Arrow file which all of
    them map into memory.
    """

    def __init__(self, table: pa.Table, path: Path, audio_root: Path | None = None) -> None:
        self.table = table
        self.path = path
        self.audio_root = audio_root
        self._spool: str | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Manifest: ...
    def __getitem__(self, index: int | slice) -> Example | Manifest:
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(len(self))))
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = {name: column[index % len(self)].as_py() for name, column in self._columns.items()}
        return self._example(row)

    @property
    def _columns(self) -> dict[str, pa.ChunkedArray]:
        if "_column_cache" not in self.__dict__:
            names = [name for name in (*COLUMNS, LINE) if name in self.table.column_names]
            self._column_cache = {name: self.table.column(name) for name in names}
        return self._column_cache

    def _example(self, row: Mapping[str, Any]) -> Example:
        source = f"{self.path}:{row[LINE]}"
        texts = {task: text for task, name in TEXT_COLUMNS.items() if (text := _filled(row.get(name)))}
        return Example(
            id=row["id"],
            audio=AudioRef(
                path=self.resolve(row["audio_path"]),
                start=_or(row.get("start"), 0.0),
                end=_or(row.get("end"), None),
            ),
            duration=row["duration"],
            texts=texts,
            language=_filled(row.get("language")),
            target_language=_filled(row.get("target_language")),
            domain=_filled(row.get("domain")),
            speaker=_filled(row.get("speaker")),
            group=_filled(row.get("group")) or _filled(row.get("video_id")),
            words=_words(row.get("words"), source),
            word_languages=tuple((row.get("word_languages") or "").split()),
            source=source,
        )

    def resolve(self, audio_path: str) -> str:
        """Where a path of the column ``audio_path`` points: under ``audio_root`` if it is there, else beside the file."""
        if os.sep == "/":
            audio_path = audio_path.replace("\\", "/")
        if self.audio_root is not None and (found := self.audio_root / audio_path).exists():
            return str(found)
        return str(self.path.parent / audio_path)

    @property
    def ids(self) -> list[str]:
        """Utterance ids, in the order of the rows."""
        return self.table.column("id").to_pylist()

    @property
    def durations(self) -> np.ndarray:
        """Seconds of each utterance, float32 ``[rows]``."""
        return self.table.column("duration").to_numpy().astype(np.float32)

    @property
    def column_names(self) -> list[str]:
        """Columns of the file under our names, then those that were added (``id``)."""
        return [name for name in self.table.column_names if name != LINE]

    def column(self, name: str) -> list[Any]:
        """All cells of a column; None where it has no value. Raises `UserError` for an unknown one."""
        if name == "group" and name not in self.table.column_names:
            name = "video_id"
        if name not in self.table.column_names:
            raise UserError(
                f"{self.path}:1: there is no column {name!r} (there are: {', '.join(self.column_names)})"
            )
        return [
            _filled(cell) if isinstance(cell, str) else cell for cell in self.table.column(name).to_pylist()
        ]

    def line(self, index: int) -> int:
        """The line of the file that row ``index`` came from."""
        return int(self.table.column(LINE)[index].as_py())

    def select(self, indices: Sequence[int] | np.ndarray) -> Manifest:
        """The rows ``indices``, in that order."""
        taken = self.table.take(pa.array(np.asarray(indices, dtype=np.int64)))
        return Manifest(taken, self.path, self.audio_root)

    def texts(self) -> Iterator[tuple[str, str | None, str]]:
        """``(task, language, text)`` of every text that is there; the language is that of the text."""
        languages = {TRANSCRIBE: "language", TRANSLATE: "target_language"}
        wanted = [
            name for name in (*TEXT_COLUMNS.values(), *languages.values()) if name in self.table.column_names
        ]
        for batch in self.table.select(wanted).to_batches(max_chunksize=_TEXT_BATCH):
            for row in batch.to_pylist():
                for task, name in TEXT_COLUMNS.items():
                    if text := _filled(row.get(name)):
                        yield task, _filled(row.get(languages[task])), text

    def waveform(self, index: int, sample_rate: int) -> np.ndarray:
        """The sound of row ``index`` (see `training.data.audio.load_audio`)."""
        return audio.load_audio(self[index].audio, sample_rate)

    def seconds(self, index: int) -> float:
        """The real length of row ``index`` by its file's header. Raises `training.data.audio.AudioError`."""
        ref = self[index].audio
        return audio.segment_duration(ref, audio.probe(ref.path))

    def sha256(self) -> str:
        """SHA-256 of the file that the manifest was read from."""
        return sha256(self.path)

    def __getstate__(self) -> dict[str, Any]:
        state = {"path": self.path, "audio_root": self.audio_root}
        if self.table.nbytes < _SPOOL_BYTES:
            return {**state, "table": self.table}
        return {**state, "spool": self._spooled()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        table = (
            state["table"] if "table" in state else pa.ipc.open_file(pa.memory_map(state["spool"])).read_all()
        )
        self.__init__(table, state["path"], state["audio_root"])  # type: ignore[misc]

    def _spooled(self) -> str:
        """The table as an Arrow file that goes when this manifest does; made at the first call."""
        if self._spool is None:
            number, self._spool = tempfile.mkstemp(prefix="polyvox-manifest-", suffix=".arrow")
            with os.fdopen(number, "wb") as handle, pa.ipc.new_file(handle, self.table.schema) as writer:
                writer.write_table(self.table)
            weakref.finalize(self, _remove, self._spool, os.getpid())
        return self._spool


def _remove(name: str, owner: int) -> None:
    """Only the process that made the file removes it: a forked worker runs finalizers too."""
    if os.getpid() == owner:
        try:
            Path(name).unlink(missing_ok=True)
        except PermissionError:  # Windows keeps files that are mapped; the system's cleaning takes it later
            return


def _filled(cell: str | None) -> str | None:
    """A cell that holds something: text other than white space. ``"nan"`` and ``"NA"`` are text like any other."""
    return cell if cell is not None and cell.strip() else None


def _or(value: float | None, default: Any) -> Any:
    return default if value is None else value


def parse_words(cell: str) -> tuple[Word, ...]:
    """``[[word, start, end], …]`` as JSON; a cell that a CSV writer has quoted inside a TSV is unquoted first.

    Raises ``ValueError`` for anything else.
    """
    cell = cell.strip()
    if cell[:2] == '"[' and cell[-1:] == '"':
        cell = cell[1:-1].replace('""', '"')
    items = json.loads(cell)
    return tuple(Word(text=str(text), start=float(start), end=float(end)) for text, start, end in items)


def _words(cell: str | None, source: str) -> tuple[Word, ...]:
    if not _filled(cell):
        return ()
    assert cell is not None
    try:
        return parse_words(cell)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: words: not JSON of the form [[word, start, end], …] ({error})") from error


# -- checks while loading --------------------------------------------------------------------------------------


class _Problems:
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

    def add_rows(self, mask: pa.ChunkedArray | pa.Array, describe: Any) -> None:
        """A problem for every row where ``mask`` is true; ``describe(row)`` says which."""
        rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        for row in rows[:MAX_PROBLEMS]:
            self.add(int(row), describe(int(row)))
        self.count += max(0, len(rows) - MAX_PROBLEMS)

    def done(self) -> None:
        """Raise what was found."""
        shown = [f"{self.path}:{line}: {message}" for line, message in sorted(self.found)[:MAX_PROBLEMS]]
        raise_problems(shown, more=self.count - len(shown))


def _rename(table: pa.Table, columns: Mapping[str, str], path: Path) -> pa.Table:
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
    return table.select(kept).rename_columns([names.get(name, name) for name in kept])


def _missing(name: str, table: pa.Table) -> str:
    there = [column for column in table.column_names if column != LINE]
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"the column {name!r} is missing{hint} (there are: {', '.join(there)})"


def _check_columns(table: pa.Table, path: Path, require: Sequence[str]) -> None:
    has_times = {"start", "end"} <= set(table.column_names)
    needed = [name for name in dict.fromkeys((*REQUIRED, *require)) if not (name == "duration" and has_times)]
    missing = [name for name in needed if name not in table.column_names]
    raise_problems(
        [
            f"{path}:1: {_missing(name, table)}; if it has another name, say so in data.columns.{name}"
            for name in missing
        ]
    )


def _with_length(table: pa.Table) -> pa.Table:
    """A duration column for tables of segments that state only ``start`` and ``end``."""
    if "duration" in table.column_names:
        return table
    return table.append_column("duration", pa.nulls(len(table), pa.string()))


def _with_numbers(table: pa.Table, problems: _Problems) -> pa.Table:
    """Durations and times as float64; a cell that is no number, or an impossible one, is a problem."""
    for name in NUMBERS:
        if name in table.column_names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, _numbers(table.column(name), name, problems))
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
    _check_durations(table, problems)
    return table


def _check_durations(table: pa.Table, problems: _Problems) -> None:
    duration = table.column("duration")
    problems.add_rows(
        pc.is_null(duration, nan_is_null=False), lambda row: "duration: no number of seconds in this row"
    )
    problems.add_rows(
        pc.less_equal(duration, 0.0), lambda row: f"duration: {duration[row].as_py():g} s; it must be above 0"
    )
    problems.add_rows(
        pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(table.column("audio_path"), ""))), 0),
        lambda row: "audio_path: empty",
    )


def _numbers(column: pa.ChunkedArray, name: str, problems: _Problems) -> pa.ChunkedArray:
    """Strings to float64; empty cells become null, cells that are no finite number a problem (and 1.0)."""
    trimmed = pc.utf8_trim_whitespace(column)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    try:
        values = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        values = pa.chunked_array(
            [pa.array([_float_or_nan(cell) for cell in trimmed.to_pylist()], pa.float64())]
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


def _with_id(table: pa.Table, problems: _Problems) -> pa.Table:
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


def _made_ids(table: pa.Table) -> pa.ChunkedArray:
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


def _report_duplicates(table: pa.Table, problems: _Problems) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(table.column("id").to_pylist()):
        before = first.setdefault(name, row)
        if before != row:
            line = table.column(LINE)[before].as_py()
            problems.add(row, f"id: {name!r} is the id of line {line} too; every utterance needs its own")


def _check_word_languages(table: pa.Table, problems: _Problems) -> None:
    if not {"word_languages", "transcript"} <= set(table.column_names):
        return
    tags, words = _count_words(table.column("word_languages")), _count_words(table.column("transcript"))
    wrong = pc.and_(pc.greater(tags, 0), pc.not_equal(tags, words))
    problems.add_rows(
        wrong,
        lambda row: (
            f"word_languages: {tags[row].as_py()} tags for the {words[row].as_py()} words of the transcript; tags of "
            "cleaned text need it cleaned first (training/data/preprocess_manifest.py)"
        ),
    )


def _count_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    counts = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
    return pc.if_else(pc.equal(trimmed, ""), 0, counts)


def _check_files(manifest: Manifest, problems: _Problems) -> None:
    known: dict[str, str | None] = {}
    for row, cell in enumerate(manifest.table.column("audio_path").to_pylist()):
        if not _filled(cell):
            continue
        if cell not in known:
            known[cell] = _file_problem(manifest, cell)
        if known[cell]:
            problems.add(row, f"audio_path: {known[cell]}")


def _file_problem(manifest: Manifest, cell: str) -> str | None:
    path = Path(manifest.resolve(cell))
    if not path.exists():
        tried = [str(manifest.audio_root / cell)] if manifest.audio_root is not None else []
        here = (
            ""
            if Path(cell).is_absolute() or not Path(cell).exists()
            else "; it is under the working directory: --audio_root ."
        )
        return f"no such file: {' nor '.join([*tried, str(path)])}{here}"
    if not path.is_file():
        return f"not a file: {path}"
    return None if os.access(path, os.R_OK) else f"may not be read: {path}"
