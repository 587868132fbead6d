"""What there is to say of a folder of shards beside its ledger: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.base.system_files import summary_of
from training.data.column_names import guess
from training.data.sources.shards.samples import Refusals

_SHOWN = 8


def remarks(folder: Path, refused: Refusals, *, samples: int, whole_names: Sequence[str]) -> tuple[str, ...]:
    """Lines on system files, on other members that are no utterance, on clips by their whole names, on texts not found.

    ``samples`` is the number of usable ones, ``whole_names`` those of the clips.
    """
    texts = None if samples else _texts(refused)
    found = [summary_of(refused.system_files), _strangers(refused), _names(whole_names), texts]
    return tuple(f"{folder}: {line}" for line in found if line is not None)


def _strangers(refused: Refusals) -> str | None:
    names = [drop.id for drop in refused if drop.reason == "bad_name" and not drop.utterances]
    if not names:
        return None
    return f"{len(names):,} members are part of no sample: their names have no key and suffix (such as {names[0]})"


def _names(names: Sequence[str]) -> str | None:
    if not names:
        return None
    return (
        f"{len(names):,} samples would share keys that end at the first dot of a name (such as {names[0]}); each goes by "
        "its whole name (data.shards.keys: suffix reads all names so)"
    )


def _texts(refused: Refusals) -> str | None:
    """Why no sample of the folder has a text, and where it may be; None where that is not what is wrong."""
    if {"transcript", "translation"} & refused.fields.keys() or not refused.counts().get("empty_text"):
        return None
    there = list(refused.fields)
    if there:
        near = guess("transcript", there)
        hint = f"; if {near!r} is the transcript: data.columns.transcript={near}" if near else ""
        shown = ", ".join(there[:_SHOWN]) + (" …" if len(there) > _SHOWN else "")
        return f"no JSON has a field 'transcript' (there are: {shown}){hint}"
    others = ", ".join(f".{suffix}" for suffix, _ in refused.others.most_common(_SHOWN))
    hint = (
        f"; there are {others}: where one of them is the transcript, name such members .txt" if others else ""
    )
    return f"no sample has a .json or a .txt, from which a transcript is read{hint}"
