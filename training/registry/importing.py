"""Rows of a table into the registry, batch by batch; a batch is stored whole or not at all.

What the database holds already is found by path, size and age of the file and by the row's fingerprint, and is not
opened again: an import that was interrupted goes on where it stood, and a second one only looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from training.data.audio import AudioError, segment_duration
from training.data.columns import COLUMNS
from training.data.control_marks import WORDS, MarkTally, Unmarked, time_cells, unmarked
from training.data.example import Example
from training.data.ledger import Drop, DropLedger
from training.data.levels import Level
from training.data.manifest import Manifest
from training.data.sound.channel import COLUMN as CHANNEL
from training.data.sound_checks import decoded, error_drop
from training.data.tables import LINE
from training.data.text import clean_transcript
from training.registry import shelf
from training.registry.checks import Rules
from training.registry.schema import hash_of
from training.registry.sound import File, convert, hashed, look, needs_conversion
from training.registry.store import Registry

BATCH = 512
_Key = TypeVar("_Key")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Where copies go of files that are costly to read, and their sample rate."""

    folder: Path
    sample_rate: int = 16_000


@dataclass(slots=True)
class Utterance:
    """One row on its way."""

    index: int
    row: dict[str, Any]
    example: Example
    path: Path
    seconds: float = 0.0
    content_hash: str = ""
    fingerprint: str = ""
    level: Level | None = None
    converted: Path | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is in the registry now (``transcript_id`` None: in a dry run it would be)."""

    index: int
    transcript_id: int | None
    fingerprint: str
    seconds: float
    content_hash: str


@dataclass
class Imported:
    """What an import did."""

    kept: list[Kept] = field(default_factory=list)
    ledger: DropLedger = field(default_factory=DropLedger)
    notes: DropLedger = field(default_factory=DropLedger)
    added_files: int = 0
    added_transcripts: int = 0
    converted: int = 0
    marks: MarkTally = field(default_factory=MarkTally)


def import_rows(
    registry: Registry | None,
    manifest: Manifest,
    rules: Rules,
    *,
    conversion: Conversion | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda rows: None,
) -> Imported:
    """Check every row of ``manifest`` and store those that pass; without a registry nothing is stored.

    Raises `UserError` when the database cannot be written; what earlier batches stored stays.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        work = _Import(registry, manifest, rules, conversion, pool)
        for start in range(0, len(manifest), BATCH):
            rows = manifest.table.slice(start, BATCH).to_pylist()
            work.batch(start, rows)
            progress(len(rows))
    return work.done


class _Import:
    """The steps of a batch, the cheap ones first; each leaves the utterances that are still good."""

    def __init__(
        self,
        registry: Registry | None,
        manifest: Manifest,
        rules: Rules,
        conversion: Conversion | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.registry, self.manifest, self.rules = registry, manifest, rules
        self.conversion, self.pool = conversion, pool
        self.done = Imported()
        self.lines: dict[bytes, int] = {}
        self.last: dict[Path, File | AudioError] = {}

    def batch(self, start: int, rows: Sequence[dict[str, Any]]) -> None:
        """Check and store ``rows``, the first of which is row ``start``."""
        good = list(self._by_text(start, rows))
        files = self._looked_up(good)
        good = list(self._by_length(good, files))
        files = self._with_hashes({u.path: files[u.path] for u in good})
        good = list(self._by_content(good, files))
        ids, undecoded = self._stored_ids(good)
        fresh = [u for u in good if u.fingerprint not in ids]
        unknown = [u for u in good if u.fingerprint not in ids or u.fingerprint in undecoded]
        rejected = self._by_sound(unknown, files) if self.rules.decode else set()
        fresh = [u for u in fresh if u.index not in rejected]
        good = [u for u in good if u.index not in rejected]
        self._convert(good, files)
        if self.registry is not None and good:
            ids |= self._store(good, fresh, files)
        self.done.kept += [
            Kept(u.index, ids.get(u.fingerprint), u.fingerprint, u.seconds, u.content_hash) for u in good
        ]
        self.last = dict(islice(files.items(), max(0, len(files) - 1), None))

    def _drop(self, drop: Drop | None) -> bool:
        if drop is not None:
            self.done.ledger.drops.append(drop)
        return drop is not None

    def _by_text(self, start: int, rows: Sequence[dict[str, Any]]) -> Iterator[Utterance]:
        for index, row in enumerate(rows, start):
            example = self.manifest[index]
            fault = self._cleaned(row, example)
            if fault is not None:
                self.done.ledger.add(example.id, "control_mark", f"{example.source}: {fault}")
                continue
            if self._drop(self.rules.text_drop(example, row) or self.rules.stated_drop(example)):
                continue
            if note := self.rules.marker_note(example, row):
                self.done.notes.drops.append(note)
                row["translation"] = ""
            yield Utterance(index, row, example, Path(example.audio.path))

    def _cleaned(self, row: dict[str, Any], example: Example) -> str | None:
        """Clean the texts of ``row``; what is wrong with its control marks, None where nothing is."""
        seconds = inf if example.duration is None else example.duration
        found: dict[str, Unmarked] = {
            name: unmarked(row[name] or "", name, seconds, clean_transcript)
            for name in ("transcript", "translation")
            if name in row
        }
        # A registry keeps times of words alone.
        found = {name: replace(one, segments=one.words) for name, one in found.items()}
        self.done.marks.add(found)
        row.update({name: one.text for name, one in found.items()})
        if "transcript" in found and not row.get(WORDS) and (cells := time_cells(found["transcript"], row)):
            row[WORDS] = cells[WORDS]
        return next((one.fault for one in found.values() if one.fault), None)

    def _looked_up(self, utterances: Sequence[Utterance]) -> dict[Path, File | AudioError]:
        """Each file once: from the database where it has not changed since, else from its header."""
        paths = list(dict.fromkeys(u.path for u in utterances))
        known = shelf.known_files(self.registry, paths) if self.registry is not None else {}
        unknown = [path for path in paths if path not in known and path not in self.last]
        found: dict[Path, File | AudioError] = {**self.last, **known}
        return {**found, **self._each(look, unknown)}

    def _with_hashes(self, files: Mapping[Path, File | AudioError]) -> dict[Path, File | AudioError]:
        bare = {
            path: file for path, file in files.items() if isinstance(file, File) and not file.content_hash
        }
        return {**files, **self._each(lambda path: hashed(bare[path]), list(bare))}

    def _each(self, ask: Callable[[_Key], Any], keys: Sequence[_Key]) -> dict[_Key, Any]:
        """Results of ``ask`` for each key, computed in threads; an `AudioError` is a result too."""

        def answer(key: _Key) -> Any:
            try:
                return ask(key)
            except AudioError as error:
                return error

        return dict(zip(keys, self.pool.map(answer, keys), strict=True))

    def _by_length(
        self, utterances: Iterable[Utterance], files: Mapping[Path, File | AudioError]
    ) -> Iterator[Utterance]:
        for u in utterances:
            file = files[u.path]
            try:
                if isinstance(file, AudioError):
                    raise file
                u.seconds = segment_duration(u.example.audio, file.info)
            except AudioError as error:
                self._unreadable(u, error)
                continue
            if not self._drop(self.rules.length_drop(u.example, u.row["transcript"], u.seconds, file.info)):
                yield u

    def _unreadable(self, u: Utterance, error: AudioError) -> None:
        self._drop(error_drop(u.example, error))

    def _by_content(
        self, utterances: Iterable[Utterance], files: Mapping[Path, File | AudioError]
    ) -> Iterator[Utterance]:
        """The first row of each content: the same sound with the same text under two paths counts once."""
        for u in utterances:
            file = files[u.path]
            if isinstance(file, AudioError):
                self._unreadable(u, file)
                continue
            u.content_hash, u.fingerprint = file.content_hash, fingerprint(file.content_hash, u.row)
            line = self.manifest.line(u.index)
            before = self.lines.setdefault(bytes.fromhex(u.fingerprint), line)
            if before != line:
                detail = f"{u.example.source}: same sound and same cells as line {before}"
                self.done.ledger.add(u.example.id, "duplicate", detail)
                continue
            yield u

    def _stored_ids(self, utterances: Sequence[Utterance]) -> tuple[dict[str, int], set[str]]:
        """Ids of what is stored, and which of it was never decoded."""
        if self.registry is None:
            return {}, set()
        names = [u.fingerprint for u in utterances]
        with self.registry.read() as connection:
            return shelf.transcript_ids(connection, names), shelf.unmeasured(connection, names)

    def _by_sound(self, utterances: Sequence[Utterance], files: Mapping[Path, File | AudioError]) -> set[int]:
        """Rows whose sound, decoded to the last sample, is not fit."""
        refs = list({u.example.audio: None for u in utterances})
        levels = self._each(lambda ref: decoded(ref, self.rules.silence_db), refs)
        rejected = set()
        for u in utterances:
            level, file = levels[u.example.audio], files[u.path]
            assert isinstance(file, File)
            if self._drop(self.rules.sound_drop(u.example, u.row["transcript"], level)):
                rejected.add(u.index)
            else:
                u.level = level
                note = self.rules.note(u.example, level, file.info)
                self.done.notes.drops += [note] if note else []
        return rejected

    def _convert(self, utterances: Sequence[Utterance], files: Mapping[Path, File | AudioError]) -> None:
        if self.conversion is None or self.registry is None:
            return
        rate = self.conversion.sample_rate
        needed = {
            path: file
            for path in dict.fromkeys(u.path for u in utterances)
            if isinstance(file := files[path], File) and needs_conversion(file, rate)
        }
        folder = self.conversion.folder
        named = {u.path for u in utterances if u.example.audio.channel is not None}
        made = self._each(
            lambda path: convert(needed[path], folder, rate, keep_channels=path in named), list(needed)
        )
        for u in utterances:
            target = made.get(u.path)
            if isinstance(target, AudioError):  # outside of the stretches that were decoded, or nothing was
                detail = f"{u.example.source}: read from the original, a copy cannot be made: {target}"
                self.done.notes.add(u.example.id, "not_converted", detail)
            else:
                u.converted = target
        self.done.converted += sum(isinstance(target, Path) for target in made.values())

    def _store(
        self,
        good: Sequence[Utterance],
        fresh: Sequence[Utterance],
        files: Mapping[Path, File | AudioError],
    ) -> dict[str, int]:
        assert self.registry is not None
        used = {u.path: file for u in good if isinstance(file := files[u.path], File)}
        copies = {u.path: u.converted for u in good if u.converted is not None}
        with self.registry.write() as connection:
            audio_ids, added = shelf.add_files(connection, self.registry, list(used.values()), copies)
            rows = [transcript_row(u, audio_ids[u.content_hash]) for u in fresh]
            ids, new = shelf.add_transcripts(connection, rows)
            added_now = {u.fingerprint for u in fresh}
            old = {u.fingerprint: level_row(u.level) for u in good if u.level is not None}
            shelf.note_levels(connection, {n: row for n, row in old.items() if n not in added_now})
        self.done.added_files += added
        self.done.added_transcripts += new
        return ids


def fingerprint(content_hash: str, row: Mapping[str, Any]) -> str:
    """The identity of an utterance: the content of the audio, the stretch, and every cell except id and split."""
    skipped = {LINE, "id", "split", "audio_path", "duration"}
    cells = {name: value for name, value in row.items() if name not in skipped and value not in (None, "")}
    return hash_of(content_hash, json.dumps(cells, sort_keys=True, ensure_ascii=False))


def transcript_row(u: Utterance, audio_id: int) -> dict[str, Any]:
    """The row of the table ``transcripts``."""
    row, example = u.row, u.example
    ours = {*COLUMNS, LINE} - {CHANNEL}
    others = {n: v for n, v in row.items() if n not in ours and v not in (None, "")}
    return {
        "fingerprint": u.fingerprint,
        "audio_id": audio_id,
        "start_s": row.get("start"),
        "end_s": row.get("end"),
        "duration": u.seconds,
        "text": row["transcript"],
        "translation": row.get("translation") or None,
        "language": example.language,
        "target_language": example.target_language,
        "domain": example.domain,
        "speaker": example.speaker,
        "recording_group": example.group,
        "words": row.get("words") or None,
        "word_languages": row.get("word_languages") or None,
        "extra": json.dumps(others, ensure_ascii=False) if others else None,
        **level_row(u.level),
    }


def level_row(level: Level | None) -> dict[str, float | None]:
    """The columns of the table ``transcripts`` that hold what was measured."""
    return {
        name: getattr(level, name, None) for name in ("peak_db", "rms_db", "clipped_share", "silent_share")
    }
