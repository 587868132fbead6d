"""Scores of baselines that use no audio: the nearest training sentence, and a copy of the transcript."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from training.evaluation.normalize import Normalizer
from training.evaluation.rows import Row

NEAREST_RULE = (
    "oracle: for each reference the training sentence with the fewest word edits to it (ties: the first in "
    "sorted order); an upper bound for any system that can only recite its training texts"
)
MOST_SENTENCES = 50_000


@dataclass(frozen=True)
class Nearest:
    """The training sentences nearest to the references. ``distances`` are word edits."""

    texts: list[str]
    distances: list[int]
    training_sentences: int
    searched: int


def nearest_training_sentences(
    rows: Sequence[Row], train_texts: Iterable[str], *, seed: int = 0, most: int = MOST_SENTENCES
) -> Nearest | None:
    """`Nearest` for the rows' references; None where there is no training text.

    Above ``most`` distinct sentences a seeded sample of that size is searched (``searched`` tells).
    """
    if not rows:
        return None
    normal: Normalizer = rows[0].normalizer
    sentences = sorted({text for text in map(normal, train_texts) if text})
    if not sentences:
        return None
    searched = sentences
    if len(sentences) > most:
        searched = sorted(random.Random(seed).sample(sentences, most))
    alphabet: dict[str, str] = {}
    choices = [_as_string(text.split(), alphabet) for text in searched]
    found = [_closest(_as_string(row.reference_words, alphabet), choices) for row in rows]
    return Nearest(
        texts=[searched[index] for index, _ in found],
        distances=[distance for _, distance in found],
        training_sentences=len(sentences),
        searched=len(searched),
    )


def _as_string(words: Sequence[str], alphabet: dict[str, str]) -> str:
    """One character per distinct word: rapidfuzz compares strings much faster than lists."""
    return "".join(alphabet.setdefault(word, chr(0x10000 + len(alphabet))) for word in words)


def _closest(query: str, choices: Sequence[str]) -> tuple[int, int]:
    match = process.extractOne(query, choices, scorer=Levenshtein.distance)
    assert match is not None
    return match[2], int(match[1])
