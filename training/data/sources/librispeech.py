"""LibriSpeech as a source of utterances, from the folders that its archives unpack to.

``LibriSpeech/<split>/<speaker>/<chapter>/`` holds ``<speaker>-<chapter>-<number>.flac`` and, for all of them, one
``<speaker>-<chapter>.trans.txt`` with lines ``<speaker>-<chapter>-<number> TEXT IN CAPITALS``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from training.base.errors import UserError
from training.base.system_files import listed, summary_of
from training.data import audio
from training.data.cached_table import CachedTable, load_cached, store
from training.data.example import Example
from training.data.file_names import same_name
from training.data.ledger import DropLedger
from training.data.manifest import Manifest, from_table
from training.data.tables import LINE, fingerprint

FOLDER = "LibriSpeech"
COMMAND = "polyvox download librispeech"
LANGUAGE = "en"
TRANSCRIPTS = ".trans.txt"
_FILES = (".flac", TRANSCRIPTS)
_READERS = 4
_VERSION = 1


class LibriSpeech(Manifest):
    """The utterances of one split or several.

    ``refused`` lists what cannot be used, ``notes`` what there is to say; both belong to the whole source and are
    empty in a selection of it.
    """

    def __init__(self, table: pa.Table, path: Path, audio_root: Path | None = None) -> None:
        super().__init__(table, path, audio_root)
        self.refused = DropLedger()
        self.notes: tuple[str, ...] = ()

    def select(self, indices: Sequence[int] | np.ndarray) -> LibriSpeech:
        """The rows ``indices``, in that order."""
        return LibriSpeech(super().select(indices).table, self.path)

    def sha256(self) -> str:
        """A fingerprint of the rows: texts, times and paths below ``LibriSpeech``."""
        return fingerprint(self.table.combine_chunks())

    def _example(self, row: Mapping[str, Any]) -> Example:
        transcripts = self.resolve(row["audio_path"].rpartition("-")[0] + TRANSCRIPTS)
        return dataclasses.replace(super()._example(row), source=f"{transcripts}:{row[LINE]}")


class Line(NamedTuple):
    """One line of a file of transcripts; ``path`` of the sound and of the file start at ``LibriSpeech``."""

    id: str
    path: str
    text: str
    file: str
    number: int


def load_librispeech(root: Path, splits: Sequence[str]) -> LibriSpeech:
    """The utterances of ``splits`` below ``root``, which holds the folder ``LibriSpeech`` or is it.

    Transcripts are in lower case (the corpus has capitals only), durations come from the FLAC headers, the group is
    the chapter. Headers are read once: ``.<split>.polyvox_index.arrow`` keeps them as long as the files' names, sizes
    and times stay.

    Raises `UserError` where the layout is another, a split is missing or only half unpacked, or none of its
    utterances can be used.
    """
    found = [_read_split(split_folder(root, name)) for name in splits]
    rows = from_table(pa.concat_tables([one.table for one in found]), _label(root, splits))
    source = LibriSpeech(rows.table, rows.path)
    for one in found:
        source.refused.extend(one.refused)
        source.notes += one.notes
    if not len(source):
        raise UserError(f"{source.path}: no utterance can be used\n{source.refused.summary()}")
    return source


def _label(root: Path, splits: Sequence[str]) -> Path:
    return corpus_folder(root) / ", ".join(splits)


def corpus_folder(root: Path) -> Path:
    """The folder ``LibriSpeech`` that ``root`` is or is to hold; it need not be there.

    Raises `UserError` where ``root`` holds splits without that folder around them.
    """
    inside = root / FOLDER
    if inside.is_dir():
        return inside
    if root.resolve().name == FOLDER:
        return root
    if bare := sorted(path.name for path in _folders(root) if _holds_transcripts(path)):
        raise UserError(
            f"{root}: holds {', '.join(bare)} without the folder {FOLDER} around them; expected is {inside / bare[0]}: "
            f"make the folder {inside} and move them there"
        )
    return inside


def split_folder(root: Path, split: str) -> Path:
    """Where a split lies. Raises `UserError` where it is not there, or was not unpacked to its end."""
    corpus = corpus_folder(root)
    get_it = f"get it with {COMMAND} --output {corpus.parent} --splits {split}"
    if not (corpus / split).is_dir():
        there = ", ".join(sorted(path.name for path in _folders(corpus))) or "none"
        raise UserError(
            f"{corpus / split}: no such folder (splits that are there: {there}); {get_it}, or name another split"
        )
    if marker(corpus, split, "unpacking").exists():
        raise UserError(
            f"{corpus / split}: is only half unpacked; {get_it}: the command goes on where it stopped"
        )
    return corpus / split


def marker(corpus: Path, split: str, state: str) -> Path:
    """The file that says how far the download has come: ``unpacking`` or ``complete``."""
    return corpus / f".{split}.{state}"


def _folders(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.is_dir()] if folder.is_dir() else []


def _holds_transcripts(folder: Path) -> bool:
    return next(listed(folder, f"*/*/*{TRANSCRIPTS}"), None) is not None


def _read_split(folder: Path) -> CachedTable:
    """The rows of a split, columns as strings, the ledger of utterances that cannot be used, and a note on system files."""
    files, notes = _files(folder)
    key = hashlib.sha256(json.dumps([_VERSION, files]).encode()).hexdigest()
    index = folder.with_name(f".{folder.name}.polyvox_index.arrow")
    found = load_cached(index, key)
    if found is None:
        table, refused = _built(folder.parent, list(files))
        store(index, key, table, refused)
        return CachedTable(table, refused, notes)
    return found._replace(notes=notes)


def _files(folder: Path) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    """Sounds and transcripts of a split, by their paths from ``LibriSpeech`` on: size and time of change; notes."""
    found: dict[str, tuple[int, int]] = {}
    system_files: list[str] = []
    for path in listed(folder, "*/*/*", system_files):
        if path.name.endswith(_FILES) and not path.name.startswith("."):
            stat = path.stat()
            found[path.relative_to(folder.parent).as_posix()] = (stat.st_size, stat.st_mtime_ns)
    line = summary_of(system_files)
    return dict(sorted(found.items())), () if line is None else (f"{folder}: {line}",)


def _built(corpus: Path, files: Sequence[str]) -> tuple[pa.Table, DropLedger]:
    refused = DropLedger()
    lines = list(_usable(corpus, files, refused))
    with ThreadPoolExecutor(_READERS) as pool:
        seconds = list(pool.map(lambda line: _seconds(corpus, line.path), lines))
    rows = []
    for line, found in zip(lines, seconds, strict=True):
        if isinstance(found, str):
            refused.add(line.id, "unreadable_audio", f"{line.file}:{line.number}: {found}")
        else:
            rows.append((line, found))
    return _table(rows), refused


def _seconds(corpus: Path, name: str) -> float | str:
    """The length of a sound, or what is wrong with it."""
    try:
        return audio.probe(corpus / name).duration
    except audio.AudioError as error:
        return str(error).removeprefix(f"{corpus}/")


def _usable(corpus: Path, files: Sequence[str], refused: DropLedger) -> Iterator[Line]:
    """Every line that has a text and a sound; the others, and sounds without a line, go to ``refused``."""
    sounds = {name for name in files if not name.endswith(TRANSCRIPTS)}
    spelt = {same_name(name): name for name in sounds}
    used: set[str] = set()
    for file in files:
        for line in _lines(corpus, file) if file.endswith(TRANSCRIPTS) else ():
            if line.path not in sounds:
                line = line._replace(path=spelt.get(same_name(line.path), line.path))
            if problem := _problem(line, sounds, used):
                reason, detail = problem
                refused.add(line.id, reason, f"{file}:{line.number}: {detail}")
            else:
                yield line
            used.add(line.path)
    for sound in sorted(sounds - used):
        refused.add(Path(sound).stem, "no_transcript", f"{sound}: no line of its chapter is about it")


def _problem(line: Line, sounds: set[str], used: set[str]) -> tuple[str, str] | None:
    """Why a line is no utterance: a countable reason and what it was."""
    if line.path in used:
        return "duplicate_id", f"{line.id} stands in an earlier line too"
    if line.path not in sounds:
        return "missing_audio", f"{line.path}: no such file"
    return None if line.text else ("empty_transcript", "no words behind the id")


def _lines(corpus: Path, file: str) -> Iterator[Line]:
    """The lines of a file of transcripts, blank ones left out."""
    folder = file.rpartition("/")[0]
    for number, raw in enumerate((corpus / file).read_bytes().splitlines(), 1):
        try:
            name, _, text = raw.decode("utf-8").strip().partition(" ")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{corpus / file}:{number}: not UTF-8 ({error.reason}); unpack the archive again"
            ) from error
        if name:
            yield Line(name, f"{folder}/{name}.flac", text.strip().lower(), file, number)


def _table(rows: Sequence[tuple[Line, float]]) -> pa.Table:
    places = [line.path.split("/") for line, _ in rows]
    columns = {
        "id": [line.id for line, _ in rows],
        "audio_path": [line.path for line, _ in rows],
        "duration": [str(seconds) for _, seconds in rows],
        "transcript": [line.text for line, _ in rows],
        "language": [LANGUAGE] * len(rows),
        "speaker": [place[-3] for place in places],
        "group": ["-".join(place[-3:-1]) for place in places],
    }
    cells = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table({**cells, LINE: pa.array([line.number for line, _ in rows], pa.int32())})
