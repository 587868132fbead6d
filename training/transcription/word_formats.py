"""Words with times as other programs read them: the guide's JSON, CTM (NIST), TextGrid (Praat)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.transcription.transcript import word_dict

if TYPE_CHECKING:
    from training.transcription.transcript import Transcript

SHORTEST = 1_000
"""Microseconds; Praat knows no interval without length."""
Interval = tuple[int, int, str]
"""Start and end in microseconds, text."""


def as_words(transcript: Transcript) -> str:
    """An object of ``text`` and ``words``, a word on a line; no words where the model tells none."""
    text = json.dumps(transcript.text, ensure_ascii=False)
    lines = [json.dumps(word_dict(word), ensure_ascii=False) for word in transcript.words]
    words = "[\n    " + ",\n    ".join(lines) + "\n  ]" if lines else "[]"
    return f'{{\n  "text": {text},\n  "words": {words}\n}}\n'


def as_ctm(transcript: Transcript) -> str:
    """``recording channel start duration word confidence`` on a line for each word.

    Words whose times are guessed have confidence 0.
    """
    name = "_".join(Path(transcript.audio).stem.split())
    return "".join(
        f"{name} 1 {word.start:.3f} {max(word.end - word.start, 0.001):.3f} {word.text} {word.confidence:.4f}\n"
        for words in transcript.placed
        for word in words
    )


def as_textgrid(transcript: Transcript) -> str:
    """Praat's long text format: a tier of words, where the model tells their times, and one of segments for each task.

    Intervals follow one another without gap or overlap: a word that begins before the one before it ends is cut there.
    """
    tiers = _tiers(transcript)
    ends = [intervals[-1][1] for intervals in tiers.values() if intervals]
    end = max(_micro(transcript.seconds), SHORTEST, *ends)
    head = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", *_span(end, 0)]
    body = [f"tiers? <exists>\nsize = {len(tiers)}\nitem []:"]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        body += _tier(number, name, _without_gaps(intervals, end), end)
    return "\n".join([*head, *body]) + "\n"


def _tiers(transcript: Transcript) -> dict[str, list[Interval]]:
    words = [(word.start, word.end, word.text) for found in transcript.placed for word in found]
    tiers = {"words": _in_order(words)} if transcript.words else {}
    for task in transcript.tasks:
        name = "segments" if task == transcript.tasks[0] else f"segments ({task})"
        tiers[name] = _in_order((one.start, one.end, one.texts[task]) for one in transcript.segments)
    return tiers


def _in_order(stretches: Iterable[tuple[float, float, str]]) -> list[Interval]:
    """Each after the one before it, none shorter than `SHORTEST`."""
    placed: list[Interval] = []
    now = 0
    for start, end, text in stretches:
        begin = max(_micro(start), now)
        now = max(_micro(end), begin + SHORTEST)
        placed.append((begin, now, text))
    return placed


def _without_gaps(intervals: Sequence[Interval], end: int) -> list[Interval]:
    filled: list[Interval] = []
    now = 0
    for start, stop, text in [*intervals, (end, end, "")]:
        filled += [(now, start, "")] if start > now else []
        filled += [(start, stop, text)] if stop > start else []
        now = stop
    return filled


def _tier(number: int, name: str, intervals: Sequence[Interval], end: int) -> list[str]:
    lines = [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
    lines += [*_span(end, 8), f"        intervals: size = {len(intervals)}"]
    for place, (start, stop, text) in enumerate(intervals, start=1):
        lines += [f"        intervals [{place}]:", *_span(stop, 12, start)]
        lines.append(f"            text = {_quoted(text)}")
    return lines


def _span(end: int, indent: int, start: int = 0) -> list[str]:
    return [
        f"{' ' * indent}{name} = {micro / 1_000_000:.6f}" for name, micro in (("xmin", start), ("xmax", end))
    ]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _micro(seconds: float) -> int:
    return max(0, round(1_000_000 * seconds))
