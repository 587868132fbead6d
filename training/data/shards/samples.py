"""The samples of a shard: members that share a key, their texts read, their sounds noted by place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from training.data import audio
from training.data.column_names import guess
from training.data.ledger import DropLedger
from training.data.missing import is_marker
from training.data.shards.archive import Member, Refused, read_members
from training.data.tables import LINE, json_cell

AUDIO_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in audio.SOUND_SUFFIXES)
OFFSET, SIZE = "__offset__", "__size__"
"""Internal columns: where in the shard the sound's bytes lie. `LINE` is the sample's number in it, from 1."""
_SIDECAR_LIMIT = 1 << 20
_NOT_OURS = ("audio_path", "start", "end", "channel")
"""Fields of a sidecar that would speak of the file that the sound was taken from."""


@dataclass
class _Sample:
    key: str
    number: int
    parts: dict[str, Member] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


class _Unusable(ValueError):
    """A sample that is left out: a countable reason and what is wrong."""


def read_shard(path: Path, columns: Mapping[str, str] | None = None) -> tuple[pa.Table, DropLedger]:
    """One row a sample (strings, and `OFFSET`, `SIZE`, `LINE`), and what of the shard cannot be used.

    As WebDataset has it, a sample is the run of members with one key: the path up to the first dot of the file's
    name; what follows the dot says what the member is. ``columns`` maps our names to those of the JSON. The row's
    ``audio_path`` is ``<shard>/<key>.<suffix>``.

    Reasons beside those of `read_members`: ``bad_name``, ``duplicate_key``, ``duplicate_member``, ``no_audio``,
    ``several_audio``, ``bad_sidecar``, ``empty_text``, ``unreadable_audio`` (where the JSON states no duration).
    """
    ledger, rows = DropLedger(), []
    ours = {theirs: name for name, theirs in (columns or {}).items()}
    with path.open("rb", buffering=1 << 14) as handle:
        for sample in _grouped(handle, path.name, ledger):
            try:
                rows.append(_row(sample, handle, path, ours))
            except _Unusable as error:
                ledger.add(f"{path.name}/{sample.key}", *error.args)
    return _table(rows), ledger


def _grouped(handle: BinaryIO, shard: str, ledger: DropLedger) -> list[_Sample]:
    """The runs of members with one key; what belongs to no sample goes into the ledger at once."""
    found: list[_Sample] = []
    seen: set[str] = set()
    for member in read_members(handle):
        key, _, suffix = _key(member.name)
        if not key or not suffix:
            if isinstance(member, Refused):
                ledger.add(f"{shard}/{member.name}".rstrip("/"), member.reason, member.detail)
            else:
                ledger.add(f"{shard}/{member.name}", "bad_name", "no key, a dot and a suffix in the name")
            continue
        if not found or found[-1].key != key:
            found.append(_Sample(key, len(found) + 1))
            if key in seen:
                found[-1].problem = ("duplicate_key", f"another sample of {shard} has the key {key!r}")
            seen.add(key)
        _add(found[-1], suffix.lower(), member)
    return found


def _key(name: str) -> tuple[str, str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), dot, suffix


def _add(sample: _Sample, suffix: str, member: Member | Refused) -> None:
    if isinstance(member, Refused):
        sample.problem = sample.problem or (member.reason, member.detail)
    elif suffix in sample.parts:
        sample.problem = sample.problem or ("duplicate_member", f"{member.name} is there twice")
    else:
        sample.parts[suffix] = member


def _row(sample: _Sample, handle: BinaryIO, path: Path, ours: Mapping[str, str]) -> dict[str, Any]:
    if sample.problem:
        raise _Unusable(*sample.problem)
    suffix, sound = _sound(sample)
    cells = _cells(sample, handle, ours)
    if not any((cells.get(name) or "").strip() for name in ("transcript", "translation")):
        named = ", ".join(cells) or "none"
        near = None if "transcript" in cells else guess("transcript", list(cells))
        found = f"no text; add data.columns.transcript={near}, if that is it" if near else "no text"
        raise _Unusable("empty_text", f"{found} (neither transcript nor translation; fields: {named})")
    _check_words(cells)
    name = f"{path.name}/{sample.key}.{suffix}"
    cells["duration"] = _duration(cells.get("duration"), sound, handle, path.parent / name)
    cells["id"] = (cells.get("id") or "").strip() or sample.key
    place = {OFFSET: sound.offset, SIZE: sound.size, LINE: sample.number, "audio_path": name}
    return {**cells, **place}


def _sound(sample: _Sample) -> tuple[str, Member]:
    sounds = [(suffix, member) for suffix, member in sample.parts.items() if suffix in AUDIO_SUFFIXES]
    if not sounds:
        raise _Unusable("no_audio", f"its members are {', '.join(sample.parts)}")
    if len(sounds) > 1:
        raise _Unusable("several_audio", f"{' and '.join(suffix for suffix, _ in sounds)}: which one?")
    return sounds[0]


def _cells(sample: _Sample, handle: BinaryIO, ours: Mapping[str, str]) -> dict[str, str | None]:
    """The fields of the JSON under our names, as the cells of a manifest; the ``.txt`` is the transcript."""
    cells = _json_cells(_content(sample, "json", handle), ours)
    plain = _decoded(_content(sample, "txt", handle), "txt")
    if plain.strip() and not (cells.get("transcript") or "").strip():
        cells["transcript"] = plain.strip()
    return cells


def _content(sample: _Sample, suffix: str, handle: BinaryIO) -> bytes:
    member = sample.parts.get(suffix)
    if member is None:
        return b""
    if member.size > _SIDECAR_LIMIT:
        raise _Unusable("bad_sidecar", f"{member.name}: {member.size} bytes, at most {_SIDECAR_LIMIT}")
    handle.seek(member.offset)
    return handle.read(member.size)


def _decoded(content: bytes, suffix: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable("bad_sidecar", f".{suffix}: not UTF-8 (byte {error.start})") from error


def _json_cells(content: bytes, ours: Mapping[str, str]) -> dict[str, str | None]:
    if not content:
        return {}
    try:
        fields = json.loads(_decoded(content, "json"))
        if not isinstance(fields, dict):
            raise ValueError(f"an object is expected, this is {type(fields).__name__}")
        cells = {
            ours.get(name, name): json_cell(value, ours.get(name, name)) for name, value in fields.items()
        }
        "".join(text for pair in cells.items() for text in pair if text).encode()  # half a surrogate pair
    except _Unusable:
        raise
    except (ValueError, RecursionError) as error:
        raise _Unusable("bad_sidecar", f".json: {error}") from error
    return {name: cell for name, cell in cells.items() if name not in _NOT_OURS and name[:2] != "__"}


def _check_words(cells: Mapping[str, str | None]) -> None:
    tags, words = (len((cells.get(name) or "").split()) for name in ("word_languages", "transcript"))
    if tags and tags != words:
        raise _Unusable("bad_sidecar", f".json: word_languages: {tags} tags for the {words} words")


def _duration(stated: str | None, sound: Member, handle: BinaryIO, name: Path) -> str:
    """Seconds as a cell: those of the JSON, else those of the sound's header."""
    if stated is None or not stated.strip() or is_marker(stated):
        handle.seek(sound.offset)
        try:
            return str(audio.probe_bytes(handle.read(sound.size), str(name)).duration)
        except audio.AudioError as error:
            raise _Unusable("unreadable_audio", str(error)) from error
    try:
        if math.isfinite(seconds := float(stated)) and seconds > 0:
            return stated
    except ValueError:
        pass
    raise _Unusable("bad_sidecar", f".json: duration: {stated!r} is not a number of seconds")


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {OFFSET: pa.int64(), SIZE: pa.int64(), LINE: pa.int32()}
    names = dict.fromkeys(["id", "audio_path", "duration", *kinds, *(name for row in rows for name in row)])
    if not rows:
        empty = {name: pa.array(np.empty(0, np.int64), kind) for name, kind in kinds.items()}
        return pa.table({name: empty.get(name, pa.array([], pa.string())) for name in names})
    return pa.table(
        {name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.string())) for name in names}
    )
