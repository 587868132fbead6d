"""Manifests: tables of utterances on disk, held in Arrow and turned into an `Example` when one is asked for."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from training.data import audio
from training.data.columns import (
    COLUMNS,
    Problems,
    check_columns,
    check_word_languages,
    rename,
    with_id,
    with_length,
    with_numbers,
)
from training.data.derived import is_derived, sha256
from training.data.example import TRANSCRIBE, TRANSLATE, AudioRef, Example, Word
from training.data.tables import LINE, read_table
from training.data.timestamps_manifest import SUFFIX, read_timestamps
from training.errors import UserError

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
) -> Manifest:
    """Read a manifest: TSV, CSV (RFC 4180), JSONL, Parquet or ``timestamps_manifest.json``, told by the suffix.

    Relative audio paths start from the manifest's folder; with ``audio_root`` they are looked up there first.
    ``columns`` maps our names to the file's; a file that a command of ours made has our names already, so that
    one configuration serves the export and its splits. ``require`` names columns that must be there beside the audio
    path and the duration. ``check_files`` looks whether every audio file is there. ``check_words`` refuses
    ``word_languages`` that do not count as many words as their transcript.

    Raises `UserError` with up to 20 problems, each as ``file:line: what is wrong``.
    """
    path = Path(path)
    table = read_timestamps(path) if path.suffix == SUFFIX else read_table(path)
    manifest = from_table(
        rename(table, _not_yet_ours(table, columns or {}, path), path),
        path,
        audio_root=audio_root,
        check_files=check_files,
        require=require,
        check_words=check_words,
    )
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
) -> Manifest:
    """The manifest of a table of strings (`training.data.tables.read_table`) with our column names."""
    check_columns(table, path, require)
    problems = Problems(path, table)
    table = with_numbers(with_length(table), problems)
    table = with_id(table, problems)
    if check_words:
        check_word_languages(table, problems)
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

    notes: tuple[str, ...] = ()
    """What there is to say of the whole source; a selection of it says nothing."""

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
        texts = {task: text for task, name in TEXT_COLUMNS.items() if (text := _text(row.get(name)))}
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
                    if text := _text(row.get(name)):
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


def _text(cell: str | None) -> str | None:
    return cell.strip() if _filled(cell) else None  # type: ignore[union-attr]


def _or(value: float | None, default: Any) -> Any:
    return default if value is None else value


def parse_words(cell: str) -> tuple[Word, ...]:
    """``[[word, start, end], …]`` as JSON. Raises ``ValueError`` or ``TypeError`` for anything else."""
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
