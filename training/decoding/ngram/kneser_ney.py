"""Interpolated modified Kneser–Ney smoothing (Chen and Goodman, 1999), the estimator of KenLM's ``lmplz``
(Heafield et al., 2013): three discounts for each order, unigrams interpolated with the uniform distribution."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.base.errors import UserError
from training.decoding.ngram.arpa import NgramModel
from training.decoding.ngram.counts import BOS, UNK, Counts, Ngram, adjusted_counts, count_ngrams

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For an order whose counts are too few or too regular for the closed form: those of ``lmplz --discount_fallback``."""
NEVER = -99.0
"""log10 probability of ``<s>``, which is never predicted: ARPA's convention."""


@dataclass(frozen=True)
class Discounts:
    """Discounts of n-grams counted once, twice, and more often. ``estimated`` is False for the fallback."""

    once: float
    twice: float
    more: float
    estimated: bool = True

    def of(self, count: int) -> float:
        """The discount of a count (0 for 0)."""
        return 0.0 if count == 0 else (self.once, self.twice, self.more)[min(count, 3) - 1]


FALLBACK = Discounts(*FALLBACK_DISCOUNTS, estimated=False)


@dataclass(frozen=True)
class Estimate:
    """A model, and figures of its estimation."""

    model: NgramModel
    sentences: int
    words: int
    discounts: tuple[Discounts, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user: sizes, and the orders whose discounts could not be estimated."""
        sizes = ", ".join(f"{len(table):,} {n}-grams" for n, table in enumerate(self.model.tables, start=1))
        lines = [f"{self.sentences:,} sentences, {self.words:,} words: {sizes}"]
        assumed = [str(n) for n, discounts in enumerate(self.discounts, start=1) if not discounts.estimated]
        if assumed:
            values = ", ".join(map(str, FALLBACK_DISCOUNTS))
            lines.append(
                f"discounts {values} assumed for order {', '.join(assumed)}: too little text to estimate them"
            )
        return tuple(lines)


def estimate(sentences: Iterable[Sequence[str]], order: int) -> Estimate:
    """An n-gram model of sentences (lists of words). Raises `UserError` where there are no words.

    The vocabulary is open: ``<unk>`` has the probability of one unseen word.
    """
    assert order >= 1
    raw, total = count_ngrams(sentences, order)
    if not total:
        raise UserError("a language model needs text, and there are no words in it")
    words = sum(raw[0].values()) - 2 * total
    counts = adjusted_counts(raw)
    discounts = tuple(_discounts(table.values()) for table in counts)
    model = _interpolate(counts, discounts)
    return Estimate(model, total, words, discounts)


def _discounts(counts: Iterable[int]) -> Discounts:
    """Chen and Goodman's closed form from the counts of counts; the fallback where it is undefined or out of range."""
    of = Counter(count for count in counts if count <= 4)
    if not all(of[n] for n in (1, 2, 3)):
        return FALLBACK
    y = of[1] / (of[1] + 2 * of[2])
    found = [n - (n + 1) * y * of[n + 1] / of[n] for n in (1, 2, 3)]
    if any(not 0 < discount <= n for n, discount in enumerate(found, start=1)):
        return FALLBACK
    once, twice, more = found
    return Discounts(once, twice, more)


def _interpolate(counts: Counts, discounts: Sequence[Discounts]) -> NgramModel:
    """Probabilities from the lowest order up; each order hands what was discounted to the one below it."""
    probabilities: dict[Ngram, float] = {}
    backoffs: dict[Ngram, float] = {}
    tables: list[dict[Ngram, tuple[float, float]]] = []
    for table, discount in zip(counts, discounts, strict=True):
        totals, left = _contexts(table, discount)
        level = {}
        if not tables:
            table = {**table, (UNK,): 0}
            uniform = 1.0 / len(table)
        for ngram, count in table.items():
            context = ngram[:-1]
            lower = probabilities[ngram[1:]] if tables else uniform
            level[ngram] = (count - discount.of(count)) / totals[context] + left[context] * lower
        backoffs.update(left)
        probabilities = level
        tables.append({gram: (math.log10(p), 0.0) for gram, p in level.items()})
    tables[0][BOS,] = (NEVER, 0.0)
    return NgramModel([_with_backoffs(table, backoffs) for table in tables])


def _contexts(table: Mapping[Ngram, int], discount: Discounts) -> tuple[dict[Ngram, int], dict[Ngram, float]]:
    """For each context: the sum of its counts, and the share of it that the discounts set free."""
    totals: dict[Ngram, int] = defaultdict(int)
    freed: dict[Ngram, float] = defaultdict(float)
    for ngram, count in table.items():
        totals[ngram[:-1]] += count
        freed[ngram[:-1]] += discount.of(count)
    return totals, {context: freed[context] / total for context, total in totals.items()}


def _with_backoffs(
    table: Mapping[Ngram, tuple[float, float]], backoffs: Mapping[Ngram, float]
) -> dict[Ngram, tuple[float, float]]:
    """The n-grams with the log10 weight of what they leave to the lower order as a context (0 where they are none)."""
    return {
        gram: (p, math.log10(backoffs[gram]) if gram in backoffs else 0.0) for gram, (p, _) in table.items()
    }
