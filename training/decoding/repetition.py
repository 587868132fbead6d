"""Finds and cuts the loops of decoders: runs of equal phrases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

LOOP_RULE = (
    "a run of at least 4 equal words, or of at least 3 equal phrases of 2 to 12 words, or a word that repeats a "
    "string of 1 to 4 characters at least 8 times"
)
CUT = "[…]"
"""Stands in a text where a run of equal phrases was cut after its first one."""
LONGEST_PHRASE, PHRASE_RUNS = 12, 3
"""Words of the longest phrase that is looked for, and how often one of several words comes in a loop at least."""
_WORD_RUNS, _CHARACTER_RUNS, _LONGEST_STRING = 4, 8, 4
# Scripts without spaces have no words to count: there a phrase is a longer string. Digits do not count: 100000000.
_IN_A_WORD = re.compile(r"([^\s\d]{1,4}?)\1{7,}|([^\s\d]{5,80}?)\2{3,}")


def has_loop(words: Sequence[str]) -> bool:
    """Whether the words have a run that `LOOP_RULE` calls a loop."""
    for length in range(1, min(LONGEST_PHRASE, len(words)) + 1):
        if _longest_run(words, length) >= _needed(length):
            return True
    return any(
        _longest_run(word, length) >= _CHARACTER_RUNS
        for word in words
        for length in range(1, min(_LONGEST_STRING, len(word) // _CHARACTER_RUNS) + 1)
    )


def loops(text: str) -> bool:
    """Whether a decoded text, as written, has a loop: case and punctuation do not count."""
    return _first_run(_keys(text.split())) is not None or _IN_A_WORD.search(text) is not None


def cut_loops(text: str) -> str:
    """The text with every run of equal phrases cut after its first phrase, `CUT` in the place of the others."""
    words = _IN_A_WORD.sub(lambda found: f"{found[1] or found[2]} {CUT}", text).split()
    while (run := _first_run(_keys(words))) is not None:
        start, length, end = run
        words[start + length : end] = [CUT]
    return " ".join(words)


def _needed(length: int) -> int:
    return _WORD_RUNS if length == 1 else PHRASE_RUNS


def _longest_run(sequence: Sequence[str], length: int) -> int:
    """The largest number of equal pieces of ``length`` in a row, starting anywhere."""
    matches = (sequence[i] == sequence[i + length] for i in range(len(sequence) - length))
    longest = max((sum(1 for _ in run) for equal, run in groupby(matches) if equal), default=0)
    return longest // length + 1


def _first_run(keys: Sequence[str]) -> tuple[int, int, int] | None:
    """The first loop: (start, words of its phrase, place after its last word); the rest of a phrase at its end belongs to it."""
    for start in range(len(keys)):
        for length in range(1, min(LONGEST_PHRASE, len(keys) - start) + 1):
            end = start + length
            while end < len(keys) and keys[end] == keys[end - length]:
                end += 1
            if (end - start) // length >= _needed(length):
                return start, length, end
    return None


def _keys(words: Sequence[str]) -> list[str]:
    """Words without case and punctuation; a sign that stands alone is its own key."""
    return [_key(word) for word in words]


def _key(word: str) -> str:
    text = unicodedata.normalize("NFC", word).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN") or text
