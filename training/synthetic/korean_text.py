"""Korean sentences for the demo corpora: patterns filled, with the particles that agree.

Particles agree as the standard grammar has it: ``은/는``, ``이/가``, ``을/를``, ``과/와``, ``이랑/랑`` and ``이에요/예요`` by
whether the last syllable has a final consonant; ``으로/로`` takes ``로`` after ㄹ too (서울로).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.synthetic.korean_grammar import PATTERNS, SLOTS
from training.synthetic.writer import write_all

_SLOT = re.compile(r"\{(\w+)(?:\|(\w+/\w+))?\}")
_FIRST_SYLLABLE, _LAST_SYLLABLE, _FINALS = ord("가"), ord("힣"), 28
_RIEUL = 8
"""Number of ㄹ among the final consonants."""


@dataclass(frozen=True, slots=True)
class KoreanSentence:
    """One intended sentence and the pattern that it was made from."""

    transcript: str
    pattern: str

    @property
    def core(self) -> str:
        return self.transcript

    @property
    def texts(self) -> set[str]:
        return {self.transcript}


def sentences(count: int, seed: int) -> list[KoreanSentence]:
    """``count`` sentences, any two at least two word edits apart. `UserError` where the grammar has no more."""
    return write_all("Korean", count, seed, _draw)


def _draw(_kind: str, rng: random.Random) -> KoreanSentence | None:
    pattern = rng.choice(PATTERNS)
    text = fill(pattern, rng)
    return None if text is None else KoreanSentence(text, pattern)


def fill(pattern: str, rng: random.Random) -> str | None:
    """The pattern with its slots filled; None where a filling came twice ("형은 형을 만나요")."""
    chosen: list[str] = []

    def filling(match: re.Match[str]) -> str:
        slot, pair = match.groups()
        chosen.append(rng.choice(SLOTS[slot]))
        return with_particle(chosen[-1], pair) if pair else chosen[-1]

    text = _SLOT.sub(filling, pattern)
    return text if len(chosen) == len(set(chosen)) else None


def with_particle(word: str, pair: str) -> str:
    """``word`` with the form of ``pair`` (after a consonant / after a vowel) that agrees with its last syllable."""
    after_consonant, after_vowel = pair.split("/")
    final = final_consonant(word[-1])
    takes_vowel_form = final == 0 or (pair == "으로/로" and final == _RIEUL)
    return word + (after_vowel if takes_vowel_form else after_consonant)


def final_consonant(syllable: str) -> int:
    """Number of the final consonant of a Hangul syllable in Unicode's order: 0 none, 8 ㄹ. `ValueError` for others."""
    if not is_syllable(syllable):
        raise ValueError(f"{syllable!r} is not a Hangul syllable")
    return (ord(syllable) - _FIRST_SYLLABLE) % _FINALS


def is_syllable(character: str) -> bool:
    """Whether a character is a composed Hangul syllable (가–힣)."""
    return _FIRST_SYLLABLE <= ord(character) <= _LAST_SYLLABLE
