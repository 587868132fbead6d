"""Which language is spoken, by the logits of a decoder's language tokens and by what it would write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SURE = 0.9
"""Probability of the language token from which on it alone decides."""
CANDIDATES, BEGINNING, WEIGHT = 5, 24, 1.0
"""Below `SURE` so many languages are compared by the first so many tokens of their texts; weight of these beside the token."""
PHRASE = 6
"""Tokens of the longest phrase whose repetition is looked for in a beginning."""


class Beginning(NamedTuple):
    """What a model writes first. ids: without the end token. log_probability: mean of the tokens, natural."""

    ids: Sequence[int]
    log_probability: float


def language_shares(
    logits: np.ndarray, open_: Sequence[bool], beginnings: Callable[[int, list[int]], Sequence[Beginning]]
) -> np.ndarray:
    """The probability of each language.

    Where the model is not sure of it (accents), the likeliest languages are compared by what it would write in them too: the
    logarithm of a token's probability, and `WEIGHT` times the mean log-probability of the beginning of the text. A text in
    the wrong language is one that the model finds improbable itself. A beginning that repeats itself is no text; where all do, the
    token decides.

    Args:
        logits: of the language tokens after the start token, float ``[rows, languages]``.
        open_: which rows' language is asked for.
        beginnings: ``(row, languages)`` to the first `BEGINNING` tokens of the text in each of them.

    Returns:
        float64 ``[rows, languages]``; a row's sum is 1.
    """
    shares = softmax(logits)
    for row, is_open in enumerate(open_):
        if is_open and shares[row].max() < SURE:
            best = np.argsort(-shares[row], kind="stable")[:CANDIDATES]
            found = beginnings(row, best.tolist())
            loops = np.array([repeats_itself(one.ids) for one in found])
            if loops.all():
                continue
            means = np.array([one.log_probability for one in found], dtype=np.float64)
            joint = np.log(shares[row, best]) + WEIGHT * means
            shares[row] = 0.0
            shares[row, best] = softmax(np.where(loops, -np.inf, joint))
    return shares


def repeats_itself(ids: Sequence[int]) -> bool:
    """Whether half of a beginning of `BEGINNING` tokens repeats the phrase of at most `PHRASE` tokens before it: a loop, of
    which a decoder is sure in any language."""
    for length in range(1, PHRASE + 1):
        run = 0
        for before, now in zip(ids, ids[length:], strict=False):
            run = run + 1 if now == before else 0
            if run >= BEGINNING // 2:
                return True
    return False


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of the last axis, in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
