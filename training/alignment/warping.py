"""Dynamic time warping of attention to time.

Published with the word timestamps of openai-whisper (2023); transformers has it for generation alone.
"""

from __future__ import annotations

import numpy as np

DIAGONAL, DOWN, RIGHT = range(3)


def first_frames(cost: np.ndarray) -> np.ndarray:
    """The frame at which the cheapest path through ``cost [tokens, frames]`` comes to each token, int64 ``[tokens]``.

    The path leads from the first cell to the last by steps to the next frame, the next token, or both.
    """
    moves = _moves(cost)
    token, frame = (size - 1 for size in cost.shape)
    first = np.zeros(len(cost), dtype=np.int64)
    while True:
        first[token] = frame
        if token == frame == 0:
            return first
        move = moves[token, frame]
        token, frame = token - (move != RIGHT), frame - (move != DOWN)


def _moves(cost: np.ndarray) -> np.ndarray:
    """The last step of the cheapest path to each cell, uint8 ``[tokens, frames]``.

    The cells of an anti-diagonal depend on the two before it alone, so each is computed at once.
    """
    tokens, frames = cost.shape
    total = np.full((tokens + 1, frames + 1), np.inf)
    total[0, 0] = 0.0
    moves = np.zeros((tokens, frames), dtype=np.uint8)
    for diagonal in range(tokens + frames - 1):
        i = np.arange(max(0, diagonal - frames + 1), min(tokens, diagonal + 1))
        j = diagonal - i
        before = np.stack((total[i, j], total[i, j + 1], total[i + 1, j]))
        moves[i, j] = before.argmin(axis=0)
        total[i + 1, j + 1] = cost[i, j] + before.min(axis=0)
    return moves
