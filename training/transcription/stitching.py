"""Joins the transcripts of two overlapping windows: no word appears twice, no word is lost."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from training.data.example import SpokenWord

TIMED_TOLERANCE = 0.35
"""Seconds by which the times of the same word may differ between two windows."""


def join(
    left: Sequence[SpokenWord], right: Sequence[SpokenWord], stitch_at: float, tolerance: float
) -> list[SpokenWord]:
    """Join the words of two overlapping windows.

    The transcripts are joined in a run of equal words that both windows have at about the same time. Words of
    ``left`` are taken up to the run, words of ``right`` after it, so that words which a window has only in part at its
    edge are dropped. Of several runs the longest with the closest times is used: for a repeated word only the times
    show which occurrence is which. Without such a run, the words are divided at ``stitch_at``.

    Args:
        left: words of the earlier window, times in seconds of the recording.
        right: words of the later window, times in seconds of the recording.
        stitch_at: where the recording was cut between the two windows, in seconds.
        tolerance: seconds by which the times of the same word may differ.

    Returns:
        The words of both windows in order, times in seconds of the recording.
    """
    run = _best_run(left, right, stitch_at, tolerance)
    if run is None:
        return [*(w for w in left if _middle(w) < stitch_at), *(w for w in right if _middle(w) >= stitch_at)]
    first, second, length = run
    step = min(range(length), key=lambda n: abs(_middle(left[first + n]) - stitch_at))
    return [*left[: first + step + 1], *right[second + step + 1 :]]


def _best_run(
    left: Sequence[SpokenWord], right: Sequence[SpokenWord], stitch_at: float, tolerance: float
) -> tuple[int, int, int] | None:
    """The run in which the transcripts are joined: (place in left, place in right, number of words)."""
    near = {i for i, word in enumerate(left) if abs(_middle(word) - stitch_at) <= 30.0}
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
    """A key that is equal for the same word: case and punctuation do not count; a mark alone is its own key."""
    text = unicodedata.normalize("NFC", word.text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN") or text
