"""Manifests: tables of utterances on disk. They are kept as Arrow tables; a row becomes an `Example` on access."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from training.base.errors import UserError
from training.base.files import is_derived, sha256
from training.data import audio
from training.data.columns import (
    COLUMNS,
    CONFIGURATION,
    Problems,
    check_cells,
    check_channels,
    check_columns,
    check_word_languages,
    rename,
    with_id,
    with_length,
    with_numbers,
)
from training.data.example import TRANSCRIBE, TRANSLATE, AudioRef, Example, Word
from training.data.file_names import existing, on_disk
from training.data.json_tables import json_value, read_jsonl
from training.data.known_layouts import as_ours, is_kaldi, is_nemo, read_kaldi
from training.data.sound.channel import COLUMN, cell_channel, with_default
from training.data.tables import LINE, MAX_PROBLEMS, raise_problems, read_table
from training.data.timestamps_manifest import SUFFIX, read_timestamps

TEXT_COLUMNS = {TRANSCRIBE: "transcript", TRANSLATE: "translation"}
_SPOOL_BYTES = 1 << 22
_TEXT_BATCH = 10_000


def load_manifest(
    path: Path,
    *,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    check_files: bool = False,
    require: Sequence[str] = (),
    check_words: bool = True,
    need_duration: bool = True,
    need_text: bool = False,
    option: str = CONFIGURATION,
) -> Manifest:
    """Read a manifest: TSV, CSV (RFC 4180), JSONL, Parquet or ``timestamps_manifest.json``, by its suffix.

    Tables of NeMo and Common Voice and data folders of Kaldi are read as they are (`training.data.known_layouts`).

    Relative audio paths start from the manifest's folder; with ``audio_root`` they are looked up there first.
    ``columns`` maps our names to the file's; a file that a command of ours made has our names already, so that
    one configuration serves the export and its splits. ``require`` names columns that must be there beside the audio
    path and the duration, ``need_text`` that there must be a transcript or a translation; ``option`` is how the user
    names a column (`training.data.columns.no_column`). Without ``need_duration`` the column may be missing and its cells
    empty: the duration of such an `Example` is None. ``check_files`` looks whether every audio file is there. ``check_words`` refuses
    ``word_languages`` that do not count as many words as their transcript.

    Raises `UserError` with up to 20 problems, each as ``file:line: what is wrong``.
    """
    path = Path(path)
    if is_kaldi(path):
        table, path = read_kaldi(path), path / "text"
    elif path.suffix == SUFFIX:
        table = read_jsonl(path, None) if is_nemo(path) else read_timestamps(path)
    else:
        table = read_table(path)
    if not columns:
        table = as_ours(table, path)
    renamed = _not_yet_ours(table, columns or {}, path)
    manifest = from_table(
        rename(table, renamed, path),
        path,
        audio_root=audio_root,
        check_files=check_files,
        require=require,
        check_words=check_words,
        need_duration=need_duration,
        need_text=need_text,
        option=option,
    )
    manifest.renamed = renamed
    pa.default_memory_pool().release_unused()  # what reading took beside the table
    return manifest


def _not_yet_ours(table: pa.Table, columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """The pairs of ``columns`` that are still to be renamed."""
    there = set(table.column_names)
    renamed = {ours for ours, theirs in columns.items() if theirs not in there and ours in there}
    if renamed and not is_derived(path):
        renamed = set()
    return {ours: theirs for ours, theirs in columns.items() if ours not in renamed}


def from_table(
    table: pa.Table,
    path: Path,
    *,
    audio_root: Path | None = None,
    check_files: bool = False,
    require: Sequence[str] = (),
    check_words: bool = True,
    need_duration: bool = True,
    need_text: bool = False,
    option: str = CONFIGURATION,
) -> Manifest:
    """The manifest of a table of strings (`training.data.tables.read_table`) with our column names."""
    check_columns(table, path, require, option=option, need_duration=need_duration, need_text=need_text)
    problems = Problems(path, table)
    table = check_cells(table, problems)
    table = with_numbers(with_length(table), problems, need_duration=need_duration)
    check_channels(table, problems)
    table = table.replace_schema_metadata(None)
    table = with_id(table, problems)
    if check_words:
        check_word_languages(table, problems)
    manifest = Manifest(table.combine_chunks(), path, Path(audio_root) if audio_root is not None else None)
    if check_files:
        _check_files(manifest, problems)
    problems.done()
    return manifest


def with_header_durations(rows: Manifest, seconds: Callable[[int], float]) -> Manifest:
    """The rows with ``seconds(row)``, from the header, where no duration is stated.

    Raises `UserError` that names the rows whose header cannot be read.
    """
    durations = rows.table.column("duration").to_pylist()
    problems = []
    for row, stated in enumerate(durations):
        try:
            durations[row] = seconds(row) if stated is None else stated
        except audio.AudioError as error:
            where = f"{rows.path}:{rows.line(row)}"
            problems.append(f"{where}: no duration is stated, and the header cannot be read: {error}")
    raise_problems(problems, more=len(problems) - MAX_PROBLEMS)
    at = rows.table.column_names.index("duration")
    table = rows.table.set_column(at, "duration", pa.array(durations, pa.float64()))
    return Manifest(table, rows.path, rows.audio_root)


class Manifest(Sequence[Example]):
    """The utterances of one file. Rows lie in Arrow memory; an `Example` is made on access.

    Cheap to send to worker processes: a large table is written once to a temporary Arrow file which all of
    them map into memory.
    """

    column_option = CONFIGURATION
    """The option before ``transcript=text`` with which a user names a column."""
    notes: tuple[str, ...] = ()
    """Notes on the whole source; a selection of rows has none."""

    def __init__(self, table: pa.Table, path: Path, audio_root: Path | None = None) -> None:
        self.table = table
        self.path = path
        self.audio_root = audio_root
        self.renamed: Mapping[str, str] | None = None
        """Our name → the file's, of the columns that `load_manifest` renamed; None where no table was read."""
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
        texts = {task: text for task, name in TEXT_COLUMNS.items() if (text := _text(row.get(name)))}
        return Example(
            id=row["id"],
            audio=AudioRef(
                path=self.resolve(row["audio_path"]),
                start=_or(row.get("start"), 0.0),
                end=_or(row.get("end"), None),
                channel=cell_channel(row.get(COLUMN)),
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
        """Where a path of the column ``audio_path`` points: under ``audio_root`` if it is there, else beside the file.

        A file whose name holds the same accents in the other Unicode form is found too.
        """
        if os.sep == "/":
            audio_path = audio_path.replace("\\", "/")
        if self.audio_root is not None and (found := existing(self.audio_root / audio_path)):
            return str(found)
        beside = self.path.parent / audio_path
        return str(beside if audio_path.isascii() else on_disk(beside))

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
        chosen = Manifest(taken, self.path, self.audio_root)
        chosen.renamed = self.renamed
        return chosen

    def take_channel(self, channel: int) -> None:
        """Take this channel of the sound of every row that names none (column ``channel``)."""
        self.table = with_default(self.table, channel)
        self.__dict__.pop("_column_cache", None)

    def texts(self) -> Iterator[tuple[str, str | None, str]]:
        """``(task, language, text)`` of every text that is there; the language is that of the text."""
        languages = {TRANSCRIBE: "language", TRANSLATE: "target_language"}
        wanted = [
            name for name in (*TEXT_COLUMNS.values(), *languages.values()) if name in self.table.column_names
        ]
        for batch in self.table.select(wanted).to_batches(max_chunksize=_TEXT_BATCH):
            for row in batch.to_pylist():
                for task, name in TEXT_COLUMNS.items():
                    if text := _text(row.get(name)):
                        yield task, _filled(row.get(languages[task])), text

    def waveform(self, index: int, sample_rate: int) -> np.ndarray:
        """The sound of row ``index`` (see `training.data.audio.load_audio`)."""
        return audio.load_audio(self[index].audio, sample_rate)

    def blocks(self, index: int) -> Iterator[tuple[np.ndarray, int]]:
        """The same as the file has it, piece by piece (see `training.data.audio.stream`)."""
        return audio.stream(self[index].audio)

    def seconds(self, index: int) -> float:
        """The real length of row ``index`` by its file's header. Raises `training.data.audio.AudioError`."""
        ref = self[index].audio
        return audio.segment_duration(ref, audio.probe(ref.path))

    def sound_marks(self) -> list[str]:
        """A mark of the audio of each row: its path as in the table, and the size of the file in bytes.

        The size of each file is read once. Its time of change is not part of the mark: a copy has the same audio.
        """
        folders = [str(folder) for folder in (self.audio_root, self.path.parent) if folder is not None]
        cells = self.table.column("audio_path").to_pylist()
        sizes = {cell: _first_size(folders, cell) for cell in dict.fromkeys(cells)}
        sizes |= {cell: _size(self.resolve(cell)) for cell, size in sizes.items() if size is None}
        return [f"{cell} {sizes[cell]}" for cell in cells]

    def sha256(self) -> str:
        """SHA-256 of the file that the manifest was read from."""
        return sha256(self.path)

    def __getstate__(self) -> dict[str, Any]:
        state = {"path": self.path, "audio_root": self.audio_root, "renamed": self.renamed}
        if self.table.nbytes < _SPOOL_BYTES:
            return {**state, "table": self.table}
        return {**state, "spool": self._spooled()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        table = (
            state["table"] if "table" in state else pa.ipc.open_file(pa.memory_map(state["spool"])).read_all()
        )
        self.__init__(table, state["path"], state["audio_root"])  # type: ignore[misc]
        self.renamed = state["renamed"]

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


def _first_size(folders: Sequence[str], cell: str) -> int | None:
    """The size of the first file ``folder/cell`` that is there; `Manifest.resolve` is too slow for a million rows."""
    return next((size for folder in folders if (size := _size(os.path.join(folder, cell))) is not None), None)  # noqa: PTH118


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return None


def _filled(cell: str | None) -> str | None:
    """A cell that holds something: text other than white space. Words like ``"nan"`` are for the ledger to judge."""
    return cell if cell is not None and cell.strip() else None


def _text(cell: str | None) -> str | None:
    return cell.strip() if _filled(cell) else None  # type: ignore[union-attr]


def _or(value: float | None, default: Any) -> Any:
    return default if value is None else value


def parse_words(cell: str) -> tuple[Word, ...]:
    """``[[word, start, end], …]`` as JSON. Raises ``ValueError`` or ``TypeError`` for anything else."""
    items = json_value(cell)
    return tuple(Word(text=str(text), start=float(start), end=float(end)) for text, start, end in items)


def _words(cell: str | None, source: str) -> tuple[Word, ...]:
    if not _filled(cell):
        return ()
    assert cell is not None
    try:
        return parse_words(cell)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: words: not JSON of the form [[word, start, end], …] ({error})") from error


def _check_files(manifest: Manifest, problems: Problems) -> None:
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
