"""Writes the sentences of a demo corpus: none near another, rare words first. Shared by all demo corpora."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from training.base.errors import UserError

CANDIDATES = 24
DRAWS = 4000
_WORD = re.compile(r"\w+")


class Drawn(Protocol):
    """What a grammar draws. ``core`` is the text whose words should be rare, ``texts`` all that must stay unlike others."""

    @property
    def pattern(self) -> str: ...
    @property
    def transcript(self) -> str: ...
    @property
    def core(self) -> str: ...
    @property
    def texts(self) -> set[str]: ...


S = TypeVar("S", bound=Drawn)
Draw = Callable[[str, random.Random], S | None]
"""One random sentence of a kind, or None where it came out badly."""


class NearDuplicates:
    """Finds texts within one word edit of a text seen before, by deletion neighbourhoods.

    Two word sequences at most one substitution, insertion or deletion apart always share a member of
    {itself, itself less one word}; some pairs two edits apart do as well and are refused too.
    Method: Garbe's symmetric delete (SymSpell), on words in place of letters.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def near(self, text: str) -> bool:
        return any(key in self._seen for key in _neighbourhood(normalised_words(text)))

    def add(self, text: str) -> None:
        self._seen.update(_neighbourhood(normalised_words(text)))


def normalised_words(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def _neighbourhood(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for index in range(len(words)):
        yield words[:index] + words[index + 1 :]


def write_all(kind: str, count: int, seed: int, draw: Draw[S]) -> list[S]:
    """``count`` new sentences of one kind."""
    writer = Writer(random.Random(seed), draw)
    return [writer.write(kind, f"{number} of {count}") for number in range(1, count + 1)]


class Writer(Generic[S]):
    """Draws sentences, remembering which are taken and how often each word was used.

    ``terms`` names what a sentence holds that should be spread most evenly of all.
    """

    def __init__(
        self, rng: random.Random, draw: Draw[S], terms: Callable[[S], Sequence[str]] = lambda _: ()
    ) -> None:
        self._rng = rng
        self._draw = draw
        self._terms_of = terms
        self._taken = NearDuplicates()
        self._words: Counter[str] = Counter()
        self._terms: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()

    def write(self, kind: str, which: str) -> S:
        """A new sentence; ``which`` names it in the `UserError` that says that the grammar has no more."""
        best = max(self._candidates(kind, which), key=self._novelty)
        for text in best.texts:
            self._taken.add(text)
        self._words.update(normalised_words(best.transcript))
        self._terms.update(self._terms_of(best))
        self._patterns[best.pattern] += 1
        return best

    def _candidates(self, kind: str, which: str) -> list[S]:
        found: list[S] = []
        for _ in range(DRAWS):
            sentence = self._draw(kind, self._rng)
            if sentence is None or any(self._taken.near(text) for text in sentence.texts):
                continue
            found.append(sentence)
            if len(found) == CANDIDATES:
                break
        if not found:
            raise UserError(
                f"the demo grammar has no further {kind} sentence two word edits from all others "
                f"(sentence {which}). Ask for fewer minutes."
            )
        return found

    def _novelty(self, sentence: S) -> float:
        words = normalised_words(sentence.core)
        novelty = sum(1 / (1 + self._words[word]) for word in words) / len(words)
        novelty += 1 / (1 + self._patterns[sentence.pattern])
        terms = self._terms_of(sentence)
        if terms:
            novelty += 200 * sum((1 + self._terms[term]) ** -2 for term in terms) / len(terms)
        return novelty
