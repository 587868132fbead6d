"""Word scores of a beam search: an n-gram language model (shallow fusion), a bonus per word, hot words."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.decoding.ngram.arpa import NgramModel, State
from training.decoding.ngram.counts import EOS

HOT_WEIGHT = 8.0
"""Natural-log units that a hot word gains where none is given: enough to win over a spelling error or two."""


@dataclass(frozen=True)
class Fusion:
    """``alpha × (log p(word | history) [+ unknown]) + beta`` for each word (Graves and Jaitly, 2014; Maas et al., 2015).

    ``unknown`` is added for a word that the model has not seen, as soon as no known word begins like it, so that
    the penalty does not come as a surprise after the pruning.
    """

    model: NgramModel
    alpha: float = 0.6
    beta: float = 1.0
    unknown: float = -12.0
    _sorted: list[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sorted", sorted(self.model.words()))

    @property
    def start(self) -> State:
        return self.model.start

    def word(self, state: State, word: str) -> tuple[float, State]:
        value, after = self.model.score(state, word)
        if word not in self.model:
            value += self.unknown
        return self.alpha * value + self.beta, after

    def pending(self, state: State, partial: str) -> float:
        return 0.0 if not partial or self._begins_known(partial) else self.alpha * self.unknown

    def end(self, state: State) -> float:
        return self.alpha * self.model.score(state, EOS)[0]

    def _begins_known(self, partial: str) -> bool:
        place = bisect_left(self._sorted, partial)
        return place < len(self._sorted) and self._sorted[place].startswith(partial)


@dataclass(frozen=True)
class HotWords:
    """Words and phrases that are likelier here than elsewhere: each occurrence gains its weight (natural log).

    While one is being spelled the share that is spelled already counts, so that it survives the pruning; what is
    not finished gains nothing.
    """

    weights: Mapping[str, float]
    _shares: Mapping[str, float] = field(init=False, repr=False, compare=False)
    _reach: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shares: dict[str, float] = {}
        for phrase, weight in self.weights.items():
            for end in range(1, len(phrase) + 1):
                share = weight * end / len(phrase)
                shares[phrase[:end]] = max(share, shares.get(phrase[:end], -math.inf))
        object.__setattr__(self, "_shares", shares)
        object.__setattr__(self, "_reach", max((len(phrase.split()) for phrase in self.weights), default=1))

    @property
    def start(self) -> tuple[str, ...]:
        return ()

    def word(self, state: tuple[str, ...], word: str) -> tuple[float, tuple[str, ...]]:
        spoken = (*state, word)[-self._reach :]
        value = sum(self.weights.get(" ".join(spoken[start:]), 0.0) for start in range(len(spoken)))
        return value, spoken

    def pending(self, state: tuple[str, ...], partial: str) -> float:
        """The largest share among the phrases that the last words and the unfinished one begin."""
        starts = range(max(0, len(state) - self._reach + 1), len(state) + 1)
        tails = (" ".join((*state[start:], partial)) for start in starts)
        return max((self._shares.get(tail, 0.0) for tail in tails if tail.strip()), default=0.0)

    def end(self, state: tuple[str, ...]) -> float:
        return 0.0


@dataclass(frozen=True)
class Together:
    """The sum of several scorers."""

    parts: tuple[Any, ...]

    @property
    def start(self) -> tuple[Any, ...]:
        return tuple(part.start for part in self.parts)

    def word(self, state: tuple[Any, ...], word: str) -> tuple[float, tuple[Any, ...]]:
        found = [part.word(own, word) for part, own in zip(self.parts, state, strict=True)]
        return sum(value for value, _ in found), tuple(after for _, after in found)

    def pending(self, state: tuple[Any, ...], partial: str) -> float:
        return sum(part.pending(own, partial) for part, own in zip(self.parts, state, strict=True))

    def end(self, state: tuple[Any, ...]) -> float:
        return sum(part.end(own) for part, own in zip(self.parts, state, strict=True))


def parse_hot_words(given: Iterable[str]) -> dict[str, float]:
    """``word``, ``two words`` or ``word:6.5`` to weights; ``@FILE`` names a file of one a line."""
    weights: dict[str, float] = {}
    for place, entry in _entries(given):
        phrase, mark, weight = entry.rpartition(":")
        if not mark:
            phrase, weight = entry, str(HOT_WEIGHT)
        try:
            weights[" ".join(phrase.split())] = float(weight)
        except ValueError as error:
            raise UserError(f"{place}: {entry!r}: write WORD or WORD:WEIGHT, the weight a number") from error
    weights.pop("", None)
    return weights


def _entries(given: Iterable[str]) -> Iterable[tuple[str, str]]:
    for entry in given:
        if not entry.startswith("@"):
            yield "--hot_words", entry
            continue
        path = Path(entry[1:])
        try:
            lines = path.read_text(encoding="utf8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--hot_words {entry}: cannot be read ({error})") from error
        yield from ((f"{path}:{n}", line.strip()) for n, line in enumerate(lines, start=1) if line.strip())
