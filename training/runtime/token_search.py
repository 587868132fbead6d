"""The search for the tokens of a text with numpy alone, for decoders that a graph computes step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from training.models.common.drawing import GumbelNoise
from training.models.common.repeated_tokens import repeats
from training.models.safeguards import Search


class Written(NamedTuple):
    """A text. ids: the end token left out. log_probability: mean natural log-probability of its tokens, the end token
    included; NaN where it was not asked for."""

    ids: list[int]
    log_probability: float


class Steps(Protocol):
    """A decoder in the middle of some texts."""

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Read the next ids int64 ``[rows, length]`` of each text; the logits of what follows, float32 ``[rows,
        vocabulary]``."""

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows of the texts so far, int64 ``[new rows]``; the rows of a clip stand together before and after."""


@dataclass(frozen=True)
class Rules:
    """Tokens that may not come next.

    end: ends a text. suppress: never written. suppress_first: not as the first token. no_repeat_ngram: no run of so many
    tokens comes twice, the prompt included; 0: any may.
    """

    end: int
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()
    no_repeat_ngram: int = 0

    def apply(self, scores: np.ndarray, read: np.ndarray, first: bool) -> None:
        """Set the scores of what may not come to minus infinity, in place.

        Args:
            scores: float32 ``[rows, vocabulary]``.
            read: ids so far with the prompt, int64 ``[rows, length]``.
            first: no token of the text has been written yet.
        """
        if self.suppress:
            scores[:, list(self.suppress)] = -np.inf
        if first and self.suppress_first:
            scores[:, list(self.suppress_first)] = -np.inf
        size = self.no_repeat_ngram
        if size and read.shape[1] >= size:
            runs = np.lib.stride_tricks.sliding_window_view(read, size, axis=1)
            again = (runs[:, :, :-1] == read[:, None, read.shape[1] + 1 - size :]).all(axis=-1)
            rows, places = np.nonzero(again)
            scores[rows, runs[rows, places, -1]] = -np.inf


def follow(
    steps: Steps, prompts: np.ndarray, rules: Rules, search: Search, *, scored: bool = True
) -> list[Written]:
    """The likeliest token at each step, or a draw.

    Args:
        steps: before its first ids.
        prompts: int64 ``[rows, length]``.
        rules: what may not be written.
        search: with ``new``; its other rules are ignored, `Rules` has them.
        scored: also compute the log-probabilities.
    """
    assert search.new is not None
    rows, start = prompts.shape
    read = np.full((rows, start + search.new), rules.end, dtype=np.int64)
    read[:, :start] = prompts
    noise = GumbelNoise() if search.temperature else None
    sums, lengths, ends = np.zeros(rows), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    open_ = np.ones(rows, dtype=bool)
    for place in range(start, start + search.new):
        scores = steps(prompts if place == start else read[:, place - 1 : place])
        rules.apply(scores, read[:, :place], place == start)
        drawn = scores if noise is None else scores / np.float32(search.temperature) + noise(scores.shape)
        chosen = np.where(open_, drawn.argmax(axis=-1), rules.end)
        read[:, place] = chosen
        if scored:
            sums += np.where(open_, _log_probability(scores, chosen), 0.0)
        lengths += open_
        ends += open_ & (chosen == rules.end)
        open_ &= chosen != rules.end
        if search.stop_repeats:
            open_ &= ~repeats(read[:, start : place + 1])
        if not open_.any():
            break
    means = sums / lengths if scored else np.full(rows, np.nan)
    return [
        Written(row[start : start + length].tolist(), mean)
        for row, length, mean in zip(read, lengths - ends, means.tolist(), strict=True)
    ]


def allowed(rules: Rules, search: Search) -> Rules:
    """The rules of a model with those that a search asks for."""
    suppress: Sequence[int] = rules.suppress if search.suppressed is None else search.suppressed
    return Rules(rules.end, tuple(suppress), rules.suppress_first, search.no_repeat_ngram)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of the last axis, float32."""
    lowered = logits - logits.max(axis=-1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True))


def _log_probability(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Natural log-probability of one id of each row, float ``[rows]``."""
    most = scores.max(axis=-1)
    total = np.log(np.exp(scores - most[:, None]).sum(axis=-1)) + most
    return scores[np.arange(len(chosen)), chosen] - total
