"""From the labels of a recording to segments that can be trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from training.base.errors import UserError
from training.data.labels.readers import Label
from training.data.ledger import Drop
from training.data.text import clean_transcript

TOUCHING = 0.05
"""Seconds between two cues that follow each other without a pause."""
ROLLING = 0.5
"""Share of the cues that repeat what was shown before them, from which on captions roll."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How labels become segments.

    tiers: those that are taken; empty: the only one there is. all_tiers: take every tier. pad: seconds of sound around a segment, at most
    half of the pause. join_gap: pause in seconds up to which neighbours of one speaker are joined; None: none are. shortest, longest: of
    a segment, in seconds.
    """

    tiers: tuple[str, ...] = ()
    all_tiers: bool = False
    pad: float = 0.1
    join_gap: float | None = None
    shortest: float = 0.3
    longest: float = 30.0


@dataclass(frozen=True)
class Segmented:
    """The segments of one recording: those that stay, those that are left out, and those that stay although something is
    worth a look."""

    kept: tuple[Label, ...]
    drops: tuple[Drop, ...]
    notes: tuple[Drop, ...]


def segmented(labels: Sequence[Label], seconds: float, rules: Rules, name: str) -> Segmented:
    """Segments of a recording.

    Texts are cleaned as `training.data.text.clean_transcript` does. Captions that roll (each cue shows the line before it once
    more) lose the repeated lines. Reasons of drops: ``no_words`` (``♪``, ``[Music]``), ``outside`` (begins behind the end of
    the sound), ``too_short``, ``too_long`` (never cut: their text would stay whole). Notes: ``captions roll``, ``overlap`` (another label has
    sound of this one), ``cut at the end`` (it ended behind the end of the sound).

    Args:
        labels: in the order of their starts.
        seconds: length of the recording.
        rules: see `Rules`.
        name: of the recording, for messages and ids.

    Raises:
        UserError: the labels have several tiers, and the rules do not say which.
    """
    drops: list[Drop] = []
    notes: list[Drop] = []
    spoken = []
    shown = _of_tiers(labels, rules, name)
    told = without_repeats(shown)
    if told != shown:
        notes.append(Drop(name, "captions roll", "lines that were shown before are taken out once"))
    for label in told:
        text = clean_transcript(" ".join(label.text.split()))
        if not any(character.isalnum() for character in text):
            drops.append(_drop(name, label, "no_words", label.text))
        elif label.start >= seconds:
            drops.append(_drop(name, label, "outside", f"the recording ends at {seconds:.2f} s"))
        else:
            if label.end > seconds + TOUCHING:
                notes.append(_drop(name, label, "cut at the end", f"the recording ends at {seconds:.2f} s"))
            spoken.append(replace(label, text=text, end=min(label.end, seconds)))
    notes += [
        _drop(name, label, "overlap", "another label has sound of it") for label in _overlapping(spoken)
    ]
    kept = []
    for label in _padded(_joined(spoken, rules), seconds, rules.pad):
        length = label.end - label.start
        if length < rules.shortest:
            drops.append(_drop(name, label, "too_short", f"{length:.2f} s, less than {rules.shortest:g}"))
        elif length > rules.longest:
            drops.append(_drop(name, label, "too_long", f"{length:.2f} s, more than {rules.longest:g}"))
        else:
            kept.append(label)
    return Segmented(tuple(kept), tuple(drops), tuple(notes))


def _drop(name: str, label: Label, reason: str, detail: str) -> Drop:
    return Drop(f"{name}@{label.start:.2f}", reason, detail)


def _of_tiers(labels: Sequence[Label], rules: Rules, name: str) -> list[Label]:
    """The labels of the tiers that are wanted. Of several tiers, each is a speaker where nothing else names one."""
    tiers = list(dict.fromkeys(label.tier for label in labels))
    if unknown := [tier for tier in rules.tiers if tier not in tiers] if any(tiers) else []:
        raise UserError(f"--tier {unknown[0]}: {name} has no such tier; there are {', '.join(tiers)}")
    chosen = tiers if rules.all_tiers or not any(tiers) else list(rules.tiers) or tiers
    if len(chosen) > 1 and not (rules.tiers or rules.all_tiers):
        counts = ", ".join(f"{tier} ({sum(one.tier == tier for one in labels)} labels)" for tier in tiers)
        raise UserError(
            f"{name}: there are several tiers: {counts}; say which ones are utterances: --tier NAME (may be repeated), or --all_tiers"
        )
    return [
        replace(label, speaker=label.speaker or (label.tier if len(chosen) > 1 else ""))
        for label in labels
        if label.tier in chosen
    ]


def without_repeats(labels: Sequence[Label]) -> list[Label]:
    """Labels without the lines that were shown just before, where most of them repeat one.

    Captions that a site writes by itself roll: a cue shows the last line of the cue before it once more, above the new line. A cue
    without a new line prolongs the one before it. Single repetitions in other files are speech and stay.
    """
    repeated = [0, *(_repeated(first, second) for first, second in pairwise(labels))]
    rolls = any(0 < lines < len(one.text.splitlines()) for one, lines in zip(labels, repeated, strict=False))
    if not rolls or sum(map(bool, repeated)) < ROLLING * (len(labels) - 1):
        return list(labels)
    kept: list[Label] = []
    for label, lines in zip(labels, repeated, strict=True):
        new = "\n".join(label.text.splitlines()[lines:])
        if new:
            kept.append(replace(label, text=new))
        elif kept:
            kept[-1] = replace(kept[-1], end=max(kept[-1].end, label.end))
    return kept


def _repeated(before: Label, label: Label) -> int:
    """How many of the first lines of a label are the last ones of the label right before it."""
    if label.start - before.end > TOUCHING:
        return 0
    shown, lines = before.text.splitlines(), label.text.splitlines()
    return next((n for n in range(min(len(shown), len(lines)), 0, -1) if lines[:n] == shown[-n:]), 0)


def _overlapping(labels: Sequence[Label]) -> Iterable[Label]:
    reached, last = 0.0, None
    for label in labels:
        if last is not None and label.start < reached - 2 * TOUCHING:
            yield label
        if label.end > reached:
            reached, last = label.end, label


def _joined(labels: Sequence[Label], rules: Rules) -> list[Label]:
    """Neighbours of one speaker as one segment, where the pause and the whole are short enough."""
    joined: list[Label] = []
    for label in labels:
        last = joined[-1] if joined else None
        if (
            rules.join_gap is not None
            and last is not None
            and (last.speaker, last.tier) == (label.speaker, label.tier)
            and -TOUCHING <= label.start - last.end <= rules.join_gap
            and label.end - last.start + 2 * rules.pad <= rules.longest
        ):
            joined[-1] = replace(last, end=label.end, text=f"{last.text} {label.text}")
        else:
            joined.append(label)
    return joined


def _padded(labels: Sequence[Label], seconds: float, pad: float) -> Iterable[Label]:
    """Labels with sound around them: never into a neighbour, at most half of the pause."""
    reached = 0.0
    for place, label in enumerate(labels):
        following = labels[place + 1].start if place + 1 < len(labels) else None
        before = label.start - reached if place == 0 else (label.start - reached) / 2
        after = seconds - label.end if following is None else (following - label.end) / 2
        yield replace(
            label, start=label.start - min(pad, max(0.0, before)), end=label.end + min(pad, max(0.0, after))
        )
        reached = max(reached, label.end)
