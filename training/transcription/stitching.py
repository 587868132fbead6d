"""Two transcripts of overlapping windows become one: no word twice, none lost."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from training.data.example import SpokenWord

TIMED_TOLERANCE = 0.35
"""Seconds by which two windows may place the same word apart."""


def join(
    left: Sequence[SpokenWord], right: Sequence[SpokenWord], seam: float, tolerance: float
) -> list[SpokenWord]:
    """The words of both, times in seconds of the recording.

    They meet in a run of equal words that both heard at about the same time (give or take ``tolerance``): up to it
    the left one counts, after it the right one, so that what either heard half at its edge goes. The longer a run and
    the closer its times, the more it is trusted: of a word said over and over only the times tell which is which.
    Without any such run the seam itself parts them.
    """
    run = _best_run(left, right, seam, tolerance)
    if run is None:
        return [*(w for w in left if _middle(w) < seam), *(w for w in right if _middle(w) >= seam)]
    first, second, length = run
    step = min(range(length), key=lambda n: abs(_middle(left[first + n]) - seam))
    return [*left[: first + step + 1], *right[second + step + 1 :]]


def _best_run(
    left: Sequence[SpokenWord], right: Sequence[SpokenWord], seam: float, tolerance: float
) -> tuple[int, int, int] | None:
    """(place in left, place in right, length) of the run to meet in."""
    near = {i for i, word in enumerate(left) if abs(_middle(word) - seam) <= 30.0}
    same = {
        (i, j)
        for i in near
        for j, word in enumerate(right)
        if abs(_middle(left[i]) - _middle(word)) <= tolerance and _key(left[i]) == _key(word)
    }
    best: tuple[float, tuple[int, int, int]] | None = None
    for i, j in sorted(same):
        if (i - 1, j - 1) in same:
            continue
        length = 1
        while (i + length, j + length) in same:
            length += 1
        pairs = [(left[i + n], right[j + n]) for n in range(length)]
        worth = sum(1.0 - abs(_middle(a) - _middle(b)) / (1.001 * tolerance) for a, b in pairs)
        if best is None or worth > best[0]:
            best = worth, (i, j, length)
    return best[1] if best else None


def _middle(word: SpokenWord) -> float:
    return (word.start + word.end) / 2


def _key(word: SpokenWord) -> str:
    """What counts as the same word: case and punctuation do not matter; a mark alone is itself."""
    text = unicodedata.normalize("NFC", word.text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN") or text
