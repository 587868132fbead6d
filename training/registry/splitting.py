"""Splits for the rows that name none: whole groups, balanced by duration, beside the rows that have one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from training.base.errors import UserError
from training.data.prepare.partition import partition
from training.data.prepare.split import PARTS
from training.data.text import sentence_key


def assign(
    given: Sequence[str],
    seconds: np.ndarray,
    groups: Sequence[str],
    *,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 42,
) -> list[str]:
    """The part of each row: ``given`` where it is not "", else the one that its group goes to.

    A group of which a row has a part follows it there (the one with most of its seconds), so that no speaker is
    torn apart by later rows. ``seconds`` float ``[rows]``.
    """
    assigned = _assigned(given, seconds, groups)
    names = sorted({g for g, part in zip(groups, given, strict=True) if not part and g not in assigned})
    place = {name: i for i, name in enumerate(names)}
    loads, held = np.zeros(len(names)), np.zeros(len(PARTS))
    for part, length, group in zip(given, seconds, groups, strict=True):
        part = part or assigned.get(group, "")
        if part:
            held[PARTS.index(part)] += length
        else:
            loads[place[group]] += length
    parts = partition(loads, ratios, seed, taken=held.tolist()) if names else np.zeros(0, dtype=np.int64)
    chosen = {**assigned, **{name: PARTS[parts[i]] for name, i in place.items()}}
    return [part or chosen[group] for part, group in zip(given, groups, strict=True)]


def _assigned(given: Sequence[str], seconds: np.ndarray, groups: Sequence[str]) -> dict[str, str]:
    """Groups that have a part already."""
    held: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for part, length, group in zip(given, seconds, groups, strict=True):
        if part:
            held[group][part] += float(length)
    return {group: max(sorted(parts), key=parts.__getitem__) for group, parts in held.items()}


def groups_of(
    strategy: str, speakers: Sequence[str | None], texts: Sequence[str], sources: Sequence[str]
) -> list[str]:
    """What must stay together: a speaker, equal sentences, or nothing but the row itself.

    Raises `UserError` for rows without a speaker; ``sources`` (``file:line``) are for that message.
    """
    if strategy == "random":
        return [str(i) for i in range(len(texts))]
    if strategy == "text":
        return [sentence_key(text) for text in texts]
    missing = [source for source, speaker in zip(sources, speakers, strict=True) if not speaker]
    if missing:
        raise UserError(
            f"{missing[0]}: no speaker in this row{f' and {len(missing) - 1:,} more' if len(missing) > 1 else ''}, and "
            "each speaker has to be in one part alone; fill the column speaker_id, or, where the speakers are not known, "
            "add --split_strategy text (equal sentences stay in one part) or random; scores on test are then better than "
            "for new speakers"
        )
    return [speaker or "" for speaker in speakers]


def take_dev(
    parts: Sequence[str], seconds: np.ndarray, groups: Sequence[str], share: float, seed: int
) -> list[str]:
    """``share`` of the training rows' duration, in whole groups, as dev; the other rows stay."""
    rows = [i for i, part in enumerate(parts) if part == "train"]
    found = assign(
        [""] * len(rows), seconds[rows], [groups[i] for i in rows], ratios=(1 - share, share, 0.0), seed=seed
    )
    changed = dict(zip(rows, found, strict=True))
    return [changed.get(i, part) for i, part in enumerate(parts)]
