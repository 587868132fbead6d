"""Which language is spoken, by the logits of a decoder's language tokens and by what it would write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SURE = 0.9
"""Probability of the language token from which on it alone decides."""
CANDIDATES, BEGINNING, WEIGHT = 5, 24, 1.0
"""Below `SURE` so many languages are compared by the first so many tokens of their texts; weight of these beside the token."""


def language_shares(
    logits: np.ndarray, open_: Sequence[bool], means: Callable[[int, list[int]], Sequence[float]]
) -> np.ndarray:
    """The probability of each language.

    Where the model is not sure of it (accents), the likeliest languages are compared by what it would write in them too: the
    logarithm of a token's probability, and `WEIGHT` times the mean log-probability of the beginning of the text. A text in
    the wrong language is one that the model finds improbable itself.

    Args:
        logits: of the language tokens after the start token, float ``[rows, languages]``.
        open_: which rows' language is asked for.
        means: ``(row, languages)`` to the mean log-probability of the first `BEGINNING` tokens of the text in each of them.

    Returns:
        float64 ``[rows, languages]``; a row's sum is 1.
    """
    shares = softmax(logits)
    for row, is_open in enumerate(open_):
        if is_open and shares[row].max() < SURE:
            best = np.argsort(-shares[row], kind="stable")[:CANDIDATES]
            weights = np.asarray(means(row, best.tolist()), dtype=np.float64)
            weighed = softmax(np.log(shares[row, best]) + WEIGHT * weights)
            shares[row] = 0.0
            shares[row, best] = weighed
    return shares


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of the last axis, in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
