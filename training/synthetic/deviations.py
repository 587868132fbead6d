"""Deviations of the atypical speakers of the Korean demo corpus: repeated and swapped syllables, long pauses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.synthetic.espeak import ssml
from training.synthetic.korean_text import is_syllable

PAUSE = "…"
"""Stands for a pause in `Spoken.text`: between words with spaces around it, inside a word without."""
REPEATED, SWAPPED, PAUSED = "repeated", "swapped", "paused"

_BETWEEN_WORDS, _INSIDE_WORD = (0.4, 1.2), (0.25, 0.6)
"""Seconds of a pause, from and to."""

_Piece = str | float


@dataclass(frozen=True, slots=True)
class Habits:
    """What a speaker tends to do: probabilities for each word.

    ``repeat`` the beginning of the word, ``swap`` two of its syllables, ``block`` inside it, ``pause`` before it.
    """

    repeat: float
    swap: float
    block: float
    pause: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """A spoken sentence: ``text`` with `PAUSE` where the speaker stopped, ``kinds`` of deviations in it."""

    text: str
    ssml: str
    kinds: tuple[str, ...]


def fluently(sentence: str) -> Spoken:
    """The sentence without deviations."""
    return _spoken([sentence], ())


def deviate(sentence: str, habits: Habits, rng: random.Random) -> Spoken:
    """The sentence with random deviations by these habits; there may be none."""
    pieces: list[_Piece] = []
    kinds: list[str] = []
    for number, word in enumerate(sentence.split()):
        if number:
            pieces.append(" ")
            if rng.random() < habits.pause:
                pieces += [rng.uniform(*_BETWEEN_WORDS), " "]
                kinds.append(PAUSED)
        spoken, deviations = _word(word, habits, rng)
        pieces += spoken
        kinds += deviations
    return _spoken(pieces, tuple(kind for kind in (REPEATED, SWAPPED, PAUSED) if kind in kinds))


def _word(word: str, habits: Habits, rng: random.Random) -> tuple[list[_Piece], list[str]]:
    """The word as pieces, at most once repeated or swapped, perhaps with a block in it, and what was done to it."""
    kinds: list[str] = []
    before = ""
    drawn = rng.random()
    if drawn < habits.repeat:
        before = _stutter(word, rng)
        kinds.append(REPEATED)
    elif drawn < habits.repeat + habits.swap and (places := _swappable(word)):
        word = _swap(word, rng.choice(places))
        kinds.append(SWAPPED)
    if rng.random() < habits.block and _syllables(word) > 1:
        at = rng.randrange(1, _syllables(word))
        return [before + word[:at], rng.uniform(*_INSIDE_WORD), word[at:]], [*kinds, PAUSED]
    return [before + word], kinds


def _stutter(word: str, rng: random.Random) -> str:
    """The first syllable of the word, now and then the first two, once or twice: "학 " before "학교에"."""
    length = 2 if _syllables(word) > 2 and rng.random() < 0.25 else 1
    return f"{word[:length]} " * rng.choice((1, 1, 2))


def _swap(word: str, at: int) -> str:
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _swappable(word: str) -> list[int]:
    """Places of syllables that differ from the one after them."""
    return [at for at in range(_syllables(word) - 1) if word[at] != word[at + 1]]


def _syllables(word: str) -> int:
    """Syllables of the word; its punctuation stands behind them."""
    return sum(map(is_syllable, word))


def _spoken(pieces: Sequence[_Piece], kinds: tuple[str, ...]) -> Spoken:
    text = "".join(piece if isinstance(piece, str) else PAUSE for piece in pieces)
    return Spoken(text, ssml(piece if isinstance(piece, float) else (piece, None) for piece in pieces), kinds)
