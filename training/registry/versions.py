"""Versions of a data set: frozen when they are written, told apart by content, compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from training.base.errors import UserError
from training.registry.schema import AudioFile, DatasetVersion, Transcript, VersionItem, now
from training.registry.shelf import chunks
from training.registry.store import Registry

_VERSIONS: Any = DatasetVersion.__table__
_ITEMS: Any = VersionItem.__table__
_TRANSCRIPTS: Any = Transcript.__table__
_AUDIO: Any = AudioFile.__table__
_INSERT = 5_000
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance of a version."""

    transcript_id: int
    fingerprint: str
    utterance: str
    split: str


@dataclass(frozen=True)
class Frozen:
    """A version as `freeze` left it; ``created`` is false where one of the same content was there."""

    name: str
    created: bool


def content_hash(items: Sequence[Item]) -> str:
    """SHA-256 over utterances, names and splits, whatever their order."""
    lines = sorted(f"{item.fingerprint}\t{item.split}\t{item.utterance}\n" for item in items)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def freeze(
    registry: Registry,
    items: Sequence[Item],
    *,
    name: str | None,
    source: str,
    source_hash: str,
    options: Mapping[str, Any],
) -> Frozen:
    """Write a version in one transaction, or find the one that holds the same already.

    Without a ``name`` it gets the next free ``v1``, ``v2``, …. Raises `UserError` for a name that is taken by
    other content: a version is never changed.
    """
    if name is not None and not re.fullmatch(r"[\w.-]{1,128}", name):
        raise UserError(f"--version {name}: letters, digits, '.', '_' and '-', such as v2")
    content = content_hash(items)
    row = {
        "fingerprint": content,
        "source": source,
        "source_hash": source_hash,
        "options": json.dumps(options, sort_keys=True),
        "created_at": now(),
    }
    for _ in range(_TRIES):
        try:
            return _freeze(registry, items, name, row)
        except UserError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise  # else another process took the name in this moment
    raise UserError(
        f"{registry.name}: other processes keep taking the version's name; give one with --version"
    )


def _freeze(registry: Registry, items: Sequence[Item], name: str | None, row: dict[str, Any]) -> Frozen:
    with registry.write() as connection:
        there = connection.execute(select(_VERSIONS)).all()
        same = [v.name for v in there if v.fingerprint == row["fingerprint"] and name in (None, v.name)]
        if same:
            return Frozen(same[0], False)
        if name in [v.name for v in there]:
            raise UserError(
                f"--version {name}: is frozen and holds other utterances or splits ({registry.name}); give another name, "
                "or none for the next free one"
            )
        name = name or _next([v.name for v in there])
        made = connection.execute(insert(_VERSIONS).values(name=name, **row))
        assert made.inserted_primary_key is not None
        version_id = made.inserted_primary_key[0]
        for block in chunks(enumerate(items), _INSERT):
            connection.execute(insert(_ITEMS), [_item_row(version_id, i, item) for i, item in block])
    return Frozen(name, True)


def _item_row(version_id: int, position: int, item: Item) -> dict[str, Any]:
    return {
        "version_id": version_id,
        "transcript_id": item.transcript_id,
        "utterance": item.utterance,
        "split": item.split,
        "position": position,
    }


def _next(names: Sequence[str]) -> str:
    numbers = [int(found[1]) for name in names if (found := re.fullmatch(r"v(\d+)", name))]
    return f"v{max(numbers, default=0) + 1}"


def find(connection: Connection, registry: Registry, name: str, key: str = "--version") -> Any:
    """The row of a version. Raises `UserError` that lists those that are there."""
    row = connection.execute(select(_VERSIONS).where(_VERSIONS.c.name == name)).one_or_none()
    if row is None:
        names = connection.scalars(select(_VERSIONS.c.name).order_by(_VERSIONS.c.id)).all()
        raise UserError(
            f"{key} {name}: {registry.name} has no such version (there are: {', '.join(names) or 'none'})"
        )
    return row


def items(registry: Registry, name: str, key: str = "--version") -> list[Item]:
    """The utterances of a version, in their order."""
    with registry.read() as connection:
        version = find(connection, registry, name, key)
        query = (
            select(_ITEMS.c.transcript_id, _TRANSCRIPTS.c.fingerprint, _ITEMS.c.utterance, _ITEMS.c.split)
            .join(_TRANSCRIPTS, _TRANSCRIPTS.c.id == _ITEMS.c.transcript_id)
            .where(_ITEMS.c.version_id == version.id)
            .order_by(_ITEMS.c.position)
        )
        return [Item(*row) for row in connection.execute(query)]


def listed(registry: Registry) -> list[dict[str, Any]]:
    """Every version: name, when, utterances, hours, source; oldest first."""
    query = (
        select(
            _VERSIONS.c.name,
            _VERSIONS.c.created_at,
            _VERSIONS.c.source,
            func.count(_ITEMS.c.transcript_id).label("utterances"),
            func.coalesce(func.sum(_TRANSCRIPTS.c.duration), 0.0).label("seconds"),
        )
        .outerjoin(_ITEMS, _ITEMS.c.version_id == _VERSIONS.c.id)
        .outerjoin(_TRANSCRIPTS, _TRANSCRIPTS.c.id == _ITEMS.c.transcript_id)
        .group_by(_VERSIONS.c.id, _VERSIONS.c.name, _VERSIONS.c.created_at, _VERSIONS.c.source)
        .order_by(_VERSIONS.c.id)
    )
    with registry.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def rows(registry: Registry, name: str, split: str | None = None, key: str = "--version") -> list[Any]:
    """Every utterance of a version (or one split of it) with its transcript and where its sound lies."""
    with registry.read() as connection:
        version = find(connection, registry, name, key)
        query = (
            select(
                _ITEMS.c.utterance,
                _ITEMS.c.split,
                _TRANSCRIPTS,
                _AUDIO.c.content_hash,
                _AUDIO.c.path,
                _AUDIO.c.converted_path,
            )
            .join(_TRANSCRIPTS, _TRANSCRIPTS.c.id == _ITEMS.c.transcript_id)
            .join(_AUDIO, _AUDIO.c.id == _TRANSCRIPTS.c.audio_id)
            .where(_ITEMS.c.version_id == version.id)
            .order_by(_ITEMS.c.position)
        )
        if split is not None:
            query = query.where(_ITEMS.c.split == split)
        return list(connection.execute(query))


@dataclass(frozen=True)
class Difference:
    """From one version to another; names of utterances."""

    added: list[str]
    removed: list[str]
    moved: list[tuple[str, str, str]]
    """Utterance, its split before, its split after."""
    changed: list[tuple[str, str, str]]
    """Utterance of the same sound, its transcript before, its transcript after (equal where other cells differ)."""
    same: int


def diff(registry: Registry, before: str, after: str) -> Difference:
    """What was added, removed, moved to another split, and transcribed anew."""
    old = {_stretch(row): row for row in rows(registry, before)}
    new = {_stretch(row): row for row in rows(registry, after)}
    both = [(old[key], new[key]) for key in new if key in old]
    moved = [(n.utterance, o.split, n.split) for o, n in both if o.split != n.split]
    changed = [(n.utterance, o.text, n.text) for o, n in both if o.fingerprint != n.fingerprint]
    same = sum(o.fingerprint == n.fingerprint and o.split == n.split for o, n in both)
    return Difference(
        added=[new[key].utterance for key in new if key not in old],
        removed=[old[key].utterance for key in old if key not in new],
        moved=moved,
        changed=changed,
        same=same,
    )


def _stretch(row: Any) -> tuple[str, float | None, float | None]:
    return row.content_hash, row.start_s, row.end_s
