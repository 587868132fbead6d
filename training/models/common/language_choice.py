"""Which language is spoken, by the logits of a decoder's language tokens and by what it would write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from training.models.architecture import TOKENS_PER_SECOND

SURE = 0.9
"""Probability of the language token from which on it alone decides."""
CANDIDATES, WEIGHT = 5, 0.3
"""Below `SURE` so many languages are compared by their texts; weight of a text's log-probability beside the token's."""
SHORT = 1 / 8
"""A text with fewer tokens than this share of the longest one stands for a part of the speech alone: scripts differ by less."""
EXTRA_TOKENS, MOST_TOKENS = 20, 220
"""Beside `TOKENS_PER_SECOND`, tokens after which a text is given up; and the most (half of Whisper's positions)."""


class Candidate(NamedTuple):
    """What a model would write in a language.

    tokens: their number, the end token included; 0 for a text that repeats itself. log_probability: mean of the tokens, natural.
    ended: it came to its end token.
    """

    tokens: int
    log_probability: float
    ended: bool


def most_tokens(seconds: float) -> int:
    """Tokens after which a candidate's text of a clip of so many seconds is given up."""
    return min(MOST_TOKENS, EXTRA_TOKENS + int(TOKENS_PER_SECOND * seconds))


def language_shares(
    logits: np.ndarray, open_: Sequence[bool], texts: Callable[[int, list[int]], Sequence[Candidate]]
) -> np.ndarray:
    """The probability of each language.

    Where the model is not sure of it (accents), the likeliest languages are compared by what it would write in them too: the
    logarithm of a token's probability, and `WEIGHT` times that of its whole text, the sum over the tokens. Not their mean: scripts
    that take many tokens for a word have many that are easy to foretell. Texts that do not end (loops), or that stand for a
    part of the speech, are compared with nothing; where none is left, the token decides.

    Args:
        logits: of the language tokens after the start token, float ``[rows, languages]``.
        open_: which rows' language is asked for.
        texts: ``(row, languages)`` to what the model would write in each of them, greedily, up to `most_tokens`.

    Returns:
        float64 ``[rows, languages]``; a row's sum is 1.
    """
    shares = softmax(logits)
    for row, is_open in enumerate(open_):
        if is_open and shares[row].max() < SURE:
            best = np.argsort(-shares[row], kind="stable")[:CANDIDATES]
            weighed = _weighed(shares[row, best], texts(row, best.tolist()))
            if weighed is not None:
                shares[row] = 0.0
                shares[row, best] = weighed
    return shares


def _weighed(shares: np.ndarray, texts: Sequence[Candidate]) -> np.ndarray | None:
    """The probabilities of some languages, float64 ``[languages]``; None where no text can be compared."""
    tokens = np.array([text.tokens for text in texts])
    means = np.array([text.log_probability for text in texts], dtype=np.float64)
    whole = np.array([text.ended for text in texts]) & (tokens >= SHORT * tokens.max())
    if not whole.any():
        return None
    return softmax(np.where(whole, np.log(shares) + WEIGHT * tokens * means, -np.inf))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of the last axis, in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
