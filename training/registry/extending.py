"""A new version from an older one and new rows: what is known keeps its split, what was transcribed anew takes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from training.data.ledger import DropLedger
from training.registry.schema import Transcript
from training.registry.shelf import chunks
from training.registry.store import Registry
from training.registry.versions import Item

_TRANSCRIPTS: Any = Transcript.__table__


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRow:
    """One utterance of a version in the making. ``stretch_of`` is the content hash of its recording."""

    transcript_id: int | None
    fingerprint: str
    utterance: str
    split: str
    seconds: float
    speaker: str | None
    group: str | None
    text: str
    stretch_of: str
    source: str

    @classmethod
    def stored(cls, row: Any) -> BaseRow:
        """From a row of `versions.rows`."""
        return cls(
            transcript_id=row.id,
            fingerprint=row.fingerprint,
            utterance=row.utterance,
            split=row.split,
            seconds=row.duration,
            speaker=row.speaker,
            group=row.recording_group,
            text=row.text,
            stretch_of=row.content_hash,
            source=f"the utterance {row.utterance!r} of the version that is extended",
        )

    def moved_to(self, split: str) -> BaseRow:
        """The same in another split."""
        return self if split == self.split else replace(self, split=split)

    def item(self) -> Item:
        """As a version keeps it."""
        assert self.transcript_id is not None
        return Item(self.transcript_id, self.fingerprint, self.utterance, self.split)


def merge(
    registry: Registry | None, base: Sequence[BaseRow], new: Sequence[BaseRow], ledger: DropLedger
) -> list[BaseRow]:
    """The rows of ``base``, then those of ``new`` that it does not hold.

    A new row for a stretch that the base has takes its place and its split. One that only shares a name with
    another utterance of the base goes into the ledger.
    """
    if not base:
        return list(new)
    rows = {row.fingerprint: row for row in base}
    by_stretch = _by_stretch(registry, base)
    names = {row.utterance: row.fingerprint for row in base}
    stretches = _by_stretch(registry, new, invert=True)
    for row in new:
        if row.fingerprint in rows:
            continue
        before = by_stretch.get(stretches.get(row.fingerprint))
        if before is None and row.utterance in names:
            detail = f"{row.source}: the version that is extended has another utterance of this name"
            ledger.add(row.utterance, "duplicate_id", detail)
            continue
        if before is not None:
            row = row.moved_to(rows.pop(before).split)
        rows[row.fingerprint] = row
    return list(rows.values())


def _by_stretch(registry: Registry | None, rows: Sequence[BaseRow], invert: bool = False) -> dict[Any, Any]:
    """``{(recording, start, end): fingerprint}`` of stored rows, or the other way round."""
    found: dict[Any, Any] = {}
    if registry is None:
        return found
    columns = (
        _TRANSCRIPTS.c.fingerprint,
        _TRANSCRIPTS.c.audio_id,
        _TRANSCRIPTS.c.start_s,
        _TRANSCRIPTS.c.end_s,
    )
    with registry.read() as connection:
        for block in chunks(row.fingerprint for row in rows):
            for name, *stretch in connection.execute(
                select(*columns).where(_TRANSCRIPTS.c.fingerprint.in_(block))
            ):
                found.update({name: tuple(stretch)} if invert else {tuple(stretch): name})
    return found
