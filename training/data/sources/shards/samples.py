"""The samples of a shard: members that share a key, their texts read, their sounds noted by place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from training.base.system_files import is_system_file
from training.data import audio
from training.data.json_tables import json_object
from training.data.ledger import DropLedger
from training.data.missing import is_marker
from training.data.sources.shards.archive import BLOCK, Member, Refused, read_members
from training.data.sources.shards.damage import Lost, account
from training.data.sources.shards.keys import (
    AUDIO_SUFFIXES,
    FIRST_DOT,
    TEXT_SUFFIXES,
    Part,
    Sample,
    assemble,
    taken_apart,
)
from training.data.tables import LINE, json_cell

OFFSET, SIZE = "__offset__", "__size__"
"""Internal columns: where in the shard the sound's bytes lie. `LINE` is the sample's number in it, from 1."""
_SIDECAR_LIMIT = 1 << 20
_NOT_OURS = ("audio_path", "start", "end", "channel")
"""Fields of a sidecar that would speak of the file that the sound was taken from."""
_TEXTS = ("transcript", "translation")


@dataclass
class Refusals(DropLedger):
    """What of a shard is not used, and what helps to say why.

    ``system_files`` are the members that an operating system has left, ``fields`` the fields (under our names) of the
    samples without a text, ``others`` the suffixes of their members that are neither sound nor text.
    """

    system_files: list[str] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def extend(self, other: DropLedger) -> None:
        """Take over the entries of another ledger, and of another shard's all else too."""
        super().extend(other)
        if isinstance(other, Refusals):
            self.system_files += other.system_files
            self.fields += other.fields
            self.others += other.others


class _Unusable(ValueError):
    """A sample that is left out: a countable reason and what is wrong."""


def read_shard(
    path: Path, columns: Mapping[str, str] | None = None, keys: str = FIRST_DOT
) -> tuple[pa.Table, Refusals]:
    """One row a sample (strings, and `OFFSET`, `SIZE`, `LINE`), and what of the shard cannot be used.

    Members are put together by the rule ``keys`` (see `training.data.sources.shards.keys`); system files are skipped.
    ``columns`` maps our names to those of the JSON. The row's ``audio_path`` is ``<shard>/<name of the sound>``.
    Every sound that is lost is one utterance of the ledger, every text whose sound is lost as well.

    Reasons beside those of `read_members` and `assemble`: ``bad_name``, ``no_audio``, ``several_audio``,
    ``bad_sidecar``, ``empty_text``, ``unreadable_audio`` (where the JSON states no duration).
    """
    ledger, rows = Refusals(), []
    ours = {theirs: name for name, theirs in (columns or {}).items()}
    incomplete: set[int] = set()
    with path.open("rb", buffering=1 << 14) as handle:
        parts, lost = _members(handle, path.name, ledger)
        for sample in assemble(parts, keys):
            try:
                rows.append(_row(sample, handle, path, ours, ledger))
            except _Unusable as error:
                reason, detail = error.args
                ledger.add(f"{path.name}/{sample.key}", reason, detail, sample.utterances)
                if reason in ("no_audio", "empty_text"):
                    incomplete |= {part.place for part in sample.parts}
    account(lost, ledger, incomplete, bytes_per_sample=_mean_size(parts, len(rows)), shard=path.name)
    return _table(rows), ledger


def _members(handle: BinaryIO, shard: str, ledger: Refusals) -> tuple[list[Part], list[Lost]]:
    """The members that have a key, and the stretches without a name; all else goes into the ledger at once."""
    parts: list[Part] = []
    lost: list[Lost] = []
    for member in read_members(handle):
        skipped = is_system_file(member.name)
        if skipped:
            ledger.system_files.append(f"{shard}/{member.name}")
        if skipped and not _cut(member):
            continue
        name = None if skipped else taken_apart(member.name)
        if name is not None:
            parts.append(Part(len(parts), name, member))
        elif isinstance(member, Refused) and (skipped or not member.name):
            lost.append(Lost(len(parts), member))
        elif isinstance(member, Refused):
            ledger.add(f"{shard}/{member.name}", member.reason, member.detail)
        else:
            sound = member.name.rpartition(".")[2].lower() in AUDIO_SUFFIXES
            detail = "no key, a dot and a suffix in the name"
            ledger.add(f"{shard}/{member.name}", "bad_name", detail, utterances=int(sound))
    return parts, lost


def _cut(member: Member | Refused) -> bool:
    return isinstance(member, Refused) and member.reason == "truncated"


def _mean_size(parts: list[Part], samples: int) -> float:
    """Bytes of the archive that a sample takes on average, with headers and padding; 0 where there is none."""
    sizes = [part.member.size for part in parts if isinstance(part.member, Member)]
    total = sum(BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK for size in sizes)
    return total / samples if samples else 0.0


def _row(
    sample: Sample, handle: BinaryIO, path: Path, ours: Mapping[str, str], ledger: Refusals
) -> dict[str, Any]:
    if sample.problem:
        raise _Unusable(*sample.problem)
    sound = _sound(sample)
    cells = _cells(sample, handle, ours)
    if not any((cells.get(name) or "").strip() for name in _TEXTS):
        raise _Unusable("empty_text", _without_text(sample, cells, ledger))
    name = f"{path.name}/{sound.name}"
    part = sample.text("json")
    sidecar = part.member.name if part is not None else ""
    _check_words(cells, sidecar)
    stated = (cells.get("duration") or "").strip()
    if stated and not is_marker(stated):
        _check_duration(cells["duration"], sidecar)
    else:
        cells["duration"] = _seconds(sound, handle, path.parent / name)
    cells["id"] = (cells.get("id") or "").strip() or sample.key
    place = {OFFSET: sound.offset, SIZE: sound.size, LINE: sample.number, "audio_path": name}
    return {**cells, **place}


def _sound(sample: Sample) -> Member:
    sounds = [part.member for part in sample.sounds if isinstance(part.member, Member)]
    if not sounds:
        raise _Unusable("no_audio", f"its members are {sample.described()}")
    if len(sounds) > 1:
        raise _Unusable("several_audio", f"{' and '.join(one.name for one in sounds)}: which one?")
    return sounds[0]


def _without_text(sample: Sample, cells: Mapping[str, str | None], ledger: Refusals) -> str:
    """What to say of a sample without a text; its fields and other members are counted."""
    others = [part.name.suffix for part in sample.parts if not part.is_sound and not part.is_text]
    ledger.fields.update(list(cells))
    ledger.others.update(others)
    named = ", ".join(cells) or "none"
    if any(sample.text(suffix) for suffix in TEXT_SUFFIXES):
        return f"neither transcript nor translation (fields: {named})"
    return f"neither transcript nor translation: no .json and no .txt (its members are {sample.described()})"


def _cells(sample: Sample, handle: BinaryIO, ours: Mapping[str, str]) -> dict[str, str | None]:
    """The fields of the JSON under our names, as the cells of a manifest; the ``.txt`` is the transcript."""
    cells = _json_cells(*_content(sample, "json", handle), ours)
    plain = _decoded(*_content(sample, "txt", handle))
    if plain.strip() and not (cells.get("transcript") or "").strip():
        cells["transcript"] = plain.strip()
    return cells


def _content(sample: Sample, suffix: str, handle: BinaryIO) -> tuple[str, bytes]:
    """Name and bytes of a sidecar, no bytes where there is none."""
    part = sample.text(suffix)
    if part is None or not isinstance(part.member, Member):
        return "", b""
    member = part.member
    if member.size > _SIDECAR_LIMIT:
        raise _Unusable("bad_sidecar", f"{member.name}: {member.size} bytes, at most {_SIDECAR_LIMIT}")
    handle.seek(member.offset)
    return member.name, handle.read(member.size)


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable("bad_sidecar", f"{name}: not UTF-8 (byte {error.start})") from error


def _json_cells(member: str, content: bytes, ours: Mapping[str, str]) -> dict[str, str | None]:
    if not content:
        return {}
    mapped = set(ours.values())
    try:
        fields = json_object(_decoded(member, content)).items()
        named = [
            (ours.get(name, name), value) for name, value in fields if name in ours or name not in mapped
        ]
        cells = {name: json_cell(value, name) for name, value in named if _is_ours(name)}
    except _Unusable:
        raise
    except ValueError as error:
        raise _Unusable("bad_sidecar", f"{member}: {error}") from error
    return cells


def _is_ours(name: str) -> bool:
    return name not in _NOT_OURS and name[:2] != "__"


def _check_words(cells: Mapping[str, str | None], sidecar: str) -> None:
    tags, words = (len((cells.get(name) or "").split()) for name in ("word_languages", "transcript"))
    if tags and tags != words:
        raise _Unusable("bad_sidecar", f"{sidecar}: word_languages: {tags} tags for the {words} words")


def _check_duration(stated: str | None, sidecar: str) -> None:
    try:
        if math.isfinite(seconds := float(stated or "")) and seconds > 0:
            return
    except ValueError:
        pass
    raise _Unusable("bad_sidecar", f"{sidecar}: duration: {stated!r} is not a number of seconds")


def _seconds(sound: Member, handle: BinaryIO, name: Path) -> str:
    """The length that the sound's header states, as a cell."""
    handle.seek(sound.offset)
    try:
        return str(audio.probe_bytes(handle.read(sound.size), str(name)).duration)
    except audio.AudioError as error:
        raise _Unusable("unreadable_audio", str(error)) from error


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {OFFSET: pa.int64(), SIZE: pa.int64(), LINE: pa.int32()}
    names = dict.fromkeys(["id", "audio_path", "duration", *kinds, *(name for row in rows for name in row)])
    if not rows:
        empty = {name: pa.array(np.empty(0, np.int64), kind) for name, kind in kinds.items()}
        return pa.table({name: empty.get(name, pa.array([], pa.string())) for name in names})
    return pa.table(
        {name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.string())) for name in names}
    )
