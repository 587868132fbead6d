"""English sentences for the demo corpus: patterns filled, with the articles that agree, and pauses drawn."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

from training.synthetic.english_grammar import PATTERNS, SLOTS
from training.synthetic.writer import write_all

_SLOT = re.compile(r"\{(a )?(\w+)\}")
_PUNCTUATION = ",.?"
_SHORTEST, _LONGEST = 4, 7
"""Words of a sentence."""

_PAUSE_SHARE, _PAUSE = 0.35, (0.15, 0.6)
"""Sentences with a pause in them, and its seconds, from and to."""


@dataclass(frozen=True, slots=True)
class EnglishSentence:
    """One sentence, ``spoken`` with the punctuation that the voice needs, and the pattern that it was made from."""

    spoken: str
    pattern: str

    @property
    def transcript(self) -> str:
        """The words alone, in lower case."""
        return " ".join(word.strip(_PUNCTUATION) for word in self.spoken.split())

    @property
    def core(self) -> str:
        return self.transcript

    @property
    def texts(self) -> set[str]:
        return {self.transcript}


def sentences(count: int, seed: int) -> list[EnglishSentence]:
    """``count`` sentences, any two at least two word edits apart. `UserError` where the grammar has no more."""
    return write_all("English", count, seed, _draw)


def _draw(_kind: str, rng: random.Random) -> EnglishSentence | None:
    """One random sentence; None where a filling came twice or it is too short or too long."""
    pattern = rng.choice(PATTERNS)
    text, chosen = pattern, Counter[str]()
    while slot := _SLOT.search(text):
        filling = rng.choice(SLOTS[slot[2]])
        chosen[filling] += 1
        text = text[: slot.start()] + (with_article(filling) if slot[1] else filling) + text[slot.end() :]
    if max(chosen.values(), default=0) > 1 or not _SHORTEST <= len(text.split()) <= _LONGEST:
        return None
    return EnglishSentence(text, pattern)


def with_article(noun: str) -> str:
    """``a key``, ``an umbrella``: by the first letter, which is as it sounds in all nouns of the grammar."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def with_pause(sentence: EnglishSentence, rng: random.Random) -> list[str | float]:
    """The words as spoken; in some sentences with a pause in seconds between two of them."""
    parts: list[str | float] = list(sentence.spoken.split())
    if rng.random() < _PAUSE_SHARE:
        parts.insert(rng.randrange(1, len(parts)), rng.uniform(*_PAUSE))
    return parts
