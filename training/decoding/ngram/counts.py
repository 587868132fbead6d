"""Counting n-grams of sentences, and the adjusted counts that Kneser and Ney estimate from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
SPECIAL = frozenset((BOS, EOS, UNK))
Ngram = tuple[str, ...]
Counts = list[dict[Ngram, int]]
"""Counts by order: ``counts[n - 1]`` has the n-grams."""


def count_ngrams(sentences: Iterable[Sequence[str]], order: int) -> tuple[Counts, int]:
    """Raw counts of all n-grams up to ``order`` of ``<s> words </s>``, and the number of sentences.

    Sentences without words do not count. A word that is written like a marker (``<s>``) is left out.
    """
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    total = 0
    for words in sentences:
        kept = [word for word in words if word not in SPECIAL]
        if not kept:
            continue
        total += 1
        padded = (BOS, *kept, EOS)
        for n, counter in enumerate(counts, start=1):
            counter.update(zip(*(padded[i:] for i in range(n)), strict=False))
    return [dict(counter) for counter in counts], total


def adjusted_counts(raw: Counts) -> Counts:
    """In how many different words' company an n-gram stands, instead of how often (below the highest order).

    An n-gram that starts with ``<s>`` has nothing to its left and keeps its raw count. ``<s>`` itself is never
    predicted and has none.
    """
    adjusted: Counts = []
    for n, counts in enumerate(raw[:-1], start=1):
        left: Counter[Ngram] = Counter(ngram[1:] for ngram in raw[n])
        adjusted.append({gram: raw[n - 1][gram] if gram[0] == BOS else left[gram] for gram in counts})
    adjusted.append(dict(raw[-1]))
    adjusted[0].pop((BOS,), None)
    return adjusted
