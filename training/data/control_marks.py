"""Control tokens of speech and language models that stand in transcripts as text: ``<|0.00|>``, ``<|vi|>``, ``</s>``.

Such marks come from tools that write their tokens out. The transcript is between them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from training.data.text import clean_transcript

TIME = re.compile(r"<\|(\d+(?:\.\d+)?)\|>")
"""Seconds from the start of the clip, as Whisper writes them."""
TIME_SLACK = 0.1
"""Seconds that the last time may lie behind the clip's end."""
SEGMENTS, WORDS = "segments", "words"

_NAMES = "s|/s|pad|unk|mask|bos|eos|blank|(?:start|end)_of_turn|2transcribe|2translate"
_MARK = re.compile(rf"(<[|｜](?:\d|[^\s<>|｜]{{2,60}})[|｜]>|<(?:{_NAMES})>)", re.IGNORECASE)
_NOT_SAID = frozenset(
    ("unk", "mask", "startofprev", "startoflm", "nospeech", "nocaptions"),
)
"""Marks that say that the text is not what the clip says: words are missing, or belong to another clip."""
_OTHER_TASK = {
    "transcript": frozenset(("translate", "2translate")),
    "translation": frozenset(("transcribe", "2transcribe")),
}

Span = tuple[str, float, float]


@dataclass(frozen=True)
class Unmarked:
    """A text without its marks.

    segments: text, start and end in seconds of each part between two time marks, where all of the text lies between
    such and the times are those of this clip. marks, times: how many marks, and time marks among them, were taken
    out. fault: why the text cannot be used, None where it can.
    """

    text: str
    segments: tuple[Span, ...] = ()
    marks: int = 0
    times: int = 0
    fault: str | None = None

    @property
    def words(self) -> tuple[Span, ...]:
        """The segments, where each of them is one word."""
        return self.segments if all(len(text.split()) == 1 for text, _, _ in self.segments) else ()


def unmarked(text: str, column: str, seconds: float, clean: Callable[[str], str]) -> Unmarked:
    """The text of a ``column`` (transcript or translation) of a clip of ``seconds``, cleaned and without control marks.

    Time marks are taken out and their times kept. Other marks are taken out before the first and after the last
    word. A mark among the words, and one by which the text is not the transcript, is a fault: it is unknown
    which of the words belong to the clip.
    """
    text = clean(text)
    parts = _MARK.split(text)  # text, mark, text, mark, …, text
    if len(parts) == 1:
        return Unmarked(text)
    texts, marks = [clean(part) for part in parts[::2]], parts[1::2]
    return Unmarked(
        text=clean(" ".join(texts)),
        segments=_segments(texts, marks, seconds),
        marks=len(marks),
        times=sum(TIME.fullmatch(mark) is not None for mark in marks),
        fault=_fault(texts, marks, column),
    )


def _fault(texts: list[str], marks: list[str], column: str) -> str | None:
    for n, mark in enumerate(marks):
        if TIME.fullmatch(mark):
            continue
        name = mark.strip("<|｜>").lower()
        if name in _NOT_SAID:
            return f"{mark} says that the text is not all that the clip says, or not of this clip"
        if name in _OTHER_TASK.get(column, ()):
            return f"{mark} says that the text is no {column}"
        if any(texts[: n + 1]) and any(texts[n + 1 :]):
            return f"{mark} stands among the words"
    return None


def _segments(texts: list[str], marks: list[str], seconds: float) -> tuple[Span, ...]:
    """Every text with the times before and after it; none at all where one lacks them or they are not of this clip."""
    times = [float(found[1]) if (found := TIME.fullmatch(mark)) else None for mark in marks]
    spans = []
    for n, text in enumerate(texts):
        if not text:
            continue
        before = next((time for time in reversed(times[:n]) if time is not None), None)
        after = next((time for time in times[n:] if time is not None), None)
        if before is None or after is None or not before < after:
            return ()
        spans.append((text, before, after))
    known = [time for time in times if time is not None]
    return tuple(spans) if known == sorted(known) and known[-1:] <= [seconds + TIME_SLACK] else ()


def watched(texts: Iterable[str], say: Callable[[str], object]) -> Iterator[str]:
    """The texts; after the last of them ``say`` is told how many hold marks, where any does."""
    count = 0
    for text in texts:
        count += "<" in text and _MARK.search(text) is not None
        yield text
    if count:
        say(
            f"{count:,} texts hold control marks such as <|0.00|> or </s>, which count as spoken text here; polyvox "
            "preprocess takes them out"
        )


def warn(texts: Iterable[str], say: Callable[[str], object]) -> None:
    """`watched` for texts that are not needed otherwise."""
    for _ in watched(texts, say):
        pass


class MarkTally:
    """Counts of utterances whose marks were changed; safe for threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, found: Mapping[str, Unmarked]) -> None:
        """The texts of one utterance by column."""
        texts = [one for one in found.values() if one.marks and one.fault is None]
        with self._lock:
            self.counts["marks_removed"] += bool(texts)
            self.counts["times_kept"] += any(
                name == "transcript" and one.segments for name, one in found.items()
            )
            self.counts["times_not_kept"] += any(
                one.times and one.text and not (name == "transcript" and one.segments)
                for name, one in found.items()
                if one.fault is None
            )

    def line(self, kept: str) -> str | None:
        """For the terminal, ``kept`` says where the times are; None where there were no marks."""
        if not self.counts["marks_removed"]:
            return None
        told = f"control marks such as <|0.00|> taken out of {self.counts['marks_removed']:,} utterances"
        if count := self.counts["times_kept"]:
            told += f"; times kept of {count:,} ({kept})"
        if count := self.counts["times_not_kept"]:
            told += (
                f"; times not kept of {count:,} (of a translation, not around all words, or not of this clip)"
            )
        return told


def time_cells(found: Unmarked, row: Mapping[str, Any]) -> dict[str, str]:
    """Cells of `SEGMENTS` and `WORDS`, as JSON of text, start and end; those that the row has of its own are not replaced."""
    given = {SEGMENTS: found.segments, WORDS: found.words}
    return {
        name: json.dumps(spans, ensure_ascii=False)
        for name, spans in given.items()
        if spans and not row.get(name)
    }


def time_columns(texts: Iterable[str | None]) -> list[str]:
    """Which columns `time_cells` may fill for a table with these transcripts."""
    timed = [text for text in texts if text and TIME.search(text)]
    if not timed:
        return []
    one_word = any(unmarked(text, "transcript", math.inf, clean_transcript).words for text in timed)
    return [SEGMENTS, WORDS] if one_word else [SEGMENTS]
