"""Finds texts that do nothing but repeat themselves, by their tokens, while they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PERIODS = 24
"""Tokens of the longest phrase that is looked for."""
RUNS, LEAST = 6, 32
"""A row is ended when a phrase has come so often in a row, and so many tokens have done nothing but repeat."""
EVERY = 8
"""Steps between two looks: one look costs a few hundredths of a step."""


def repeats(written: Any) -> Any:
    """Which rows end in one phrase over and over; it is looked for after every `EVERY` tokens alone.

    Args:
        written: token ids int64 ``[rows, length]`` without the prompt: an array of numpy, or a tensor of torch.

    Returns:
        bool ``[rows]``, of the same kind.
    """
    found = written[:, 0] != written[:, 0] if written.shape[1] else written.any(1)
    if written.shape[1] % EVERY:
        return found
    for period in range(1, PERIODS + 1):
        length = max(LEAST, RUNS * period)
        if written.shape[1] >= length:
            last = written[:, -length:]
            found = found | (last[:, period:] == last[:, :-period]).all(1)
    return found


def stopped_at(ids: Sequence[int]) -> int | None:
    """After how many of the ids of a finished text it would have been ended; None: never."""
    row = np.array(ids)[None]
    for length in range(EVERY * -(-LEAST // EVERY), len(ids) + 1, EVERY):
        if repeats(row[:, :length])[0]:
            return length
    return None
