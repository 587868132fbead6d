"""Recordings and transcripts in the database: looking up by content, adding what is not there yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select, update

from training.data.audio import AudioInfo
from training.registry.schema import AudioFile, Transcript, hash_of, now
from training.registry.sound import File
from training.registry.store import Registry, insert_new

IN_LIST = 500
"""Values in one SQL ``IN``: every database takes so many."""
_AUDIO: Any = AudioFile.__table__
_TRANSCRIPTS: Any = Transcript.__table__
_Item = TypeVar("_Item")


def chunks(items: Iterable[_Item], size: int = IN_LIST) -> Iterator[list[_Item]]:
    """``items`` in lists of at most ``size``."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


def known_files(registry: Registry, paths: Sequence[Path]) -> dict[Path, File]:
    """Those of ``paths`` that lie there as they did when they were stored, by size and time of last change."""
    keys = {hash_of(registry.relative(path)): path for path in paths}
    found: dict[Path, File] = {}
    with registry.read() as connection:
        for block in chunks(keys):
            for row in connection.execute(select(_AUDIO).where(_AUDIO.c.path_key.in_(block))):
                path = keys[row.path_key]
                if _age(path) == (row.size_bytes, row.modified_ns):
                    info = AudioInfo(row.duration, row.sample_rate, row.channels, row.frames)
                    found[path] = File(path, row.size_bytes, row.modified_ns, info, row.content_hash)
    return found


def _age(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def add_files(
    connection: Connection, registry: Registry, files: Sequence[File], copies: Mapping[Path, Path]
) -> tuple[dict[str, int], int]:
    """Ids by content hash, and how many are new. A recording that has moved is told by its content."""
    by_hash = {file.content_hash: file for file in files}
    rows = {file.content_hash: _row(registry, file, copies.get(file.path)) for file in by_hash.values()}
    _forget_replaced(connection, rows)
    there = _stored(connection, rows)
    _follow_moves(connection, registry, rows, there)
    added = [rows[name] for name in sorted(rows) if name not in there]
    insert_new(connection, _AUDIO, added)
    ids = {row.content_hash: row.id for row in _stored(connection, rows).values()}
    return ids, len(added)


def _row(registry: Registry, file: File, copy: Path | None) -> dict[str, Any]:
    path = registry.relative(file.path)
    return {
        "content_hash": file.content_hash,
        "path": path,
        "path_key": hash_of(path),
        "converted_path": registry.relative(copy) if copy is not None else None,
        "size_bytes": file.size,
        "modified_ns": file.modified_ns,
        "sample_rate": file.info.sample_rate,
        "channels": file.info.channels,
        "frames": file.info.frames,
        "duration": file.info.duration,
        "added_at": now(),
    }


def _stored(connection: Connection, hashes: Iterable[str]) -> dict[str, Any]:
    found = {}
    for block in chunks(hashes):
        for row in connection.execute(select(_AUDIO).where(_AUDIO.c.content_hash.in_(block))):
            found[row.content_hash] = row
    return found


def _forget_replaced(connection: Connection, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Older recordings whose path now holds another one: a version that has them must not read the new one."""
    content = {row["path_key"]: name for name, row in rows.items()}
    for block in chunks(content):
        query = select(_AUDIO.c.id, _AUDIO.c.path_key, _AUDIO.c.content_hash)
        stored = connection.execute(query.where(_AUDIO.c.path_key.in_(block))).all()
        stale = [row.id for row in stored if row.content_hash != content[row.path_key]]
        if stale:
            gone = {"path": None, "path_key": None}
            connection.execute(update(_AUDIO).where(_AUDIO.c.id.in_(stale)).values(gone))


def _follow_moves(
    connection: Connection,
    registry: Registry,
    rows: Mapping[str, Mapping[str, Any]],
    there: Mapping[str, Any],
) -> None:
    """A stored recording that is no longer at its old path lies where it was found now; a copy made now is noted."""
    for name, old in sorted(there.items()):  # in one order everywhere: two writers do not block each other
        new = dict(rows[name])
        copy = new["converted_path"]
        changed = {"converted_path": copy} if copy and copy != old.converted_path else {}
        here = old.path == new["path"]
        if here or old.path is None or not registry.resolve(old.path).is_file():
            places = ("path", "path_key", "size_bytes", "modified_ns")
            changed |= {key: new[key] for key in places if new[key] != getattr(old, key)}
        if changed:
            connection.execute(update(_AUDIO).where(_AUDIO.c.id == old.id).values(changed))


def transcript_ids(connection: Connection, fingerprints: Iterable[str]) -> dict[str, int]:
    """Ids of those that are stored."""
    found: dict[str, int] = {}
    for block in chunks(fingerprints):
        query = select(_TRANSCRIPTS.c.fingerprint, _TRANSCRIPTS.c.id)
        rows = connection.execute(query.where(_TRANSCRIPTS.c.fingerprint.in_(block)))
        found.update({row.fingerprint: row.id for row in rows})
    return found


def unmeasured(connection: Connection, fingerprints: Iterable[str]) -> set[str]:
    """Those that are stored and whose sound was never decoded: they were imported without that check."""
    found: set[str] = set()
    for block in chunks(fingerprints):
        query = select(_TRANSCRIPTS.c.fingerprint).where(_TRANSCRIPTS.c.fingerprint.in_(block))
        found |= set(connection.execute(query.where(_TRANSCRIPTS.c.peak_db.is_(None))).scalars())
    return found


def note_levels(connection: Connection, levels: Mapping[str, Mapping[str, float | None]]) -> None:
    """What was measured now of transcripts that are stored, by fingerprint."""
    for name, measured in sorted(levels.items()):
        where = _TRANSCRIPTS.c.fingerprint == name
        connection.execute(update(_TRANSCRIPTS).where(where).values(dict(measured)))


def add_transcripts(connection: Connection, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """Ids by fingerprint, and how many are new."""
    there = transcript_ids(connection, [row["fingerprint"] for row in rows])
    added = sorted((row for row in rows if row["fingerprint"] not in there), key=lambda r: r["fingerprint"])
    insert_new(connection, _TRANSCRIPTS, [{**row, "added_at": now()} for row in added])
    return transcript_ids(connection, [row["fingerprint"] for row in rows]), len(added)
