"""The best path of a text through the frames of a clip, with a pause allowed before, between and after its words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

PAUSE_COST = 2.7
"""What the begin of a pause costs, in the unit of the scores: a dip of a frame or two inside speech is no pause."""
_RULED_OUT = -1e9
_STAY, _STEP, _SKIP = range(3)


def word_spans(tokens: np.ndarray, pause: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Frames of each word on the path with the largest sum of scores.

    The path goes through the tokens in order and stays in each for at least one frame. Before the first word, between two
    words and after the last one it may stay in a pause. So a frame belongs to one token or to a pause.

    Args:
        tokens: score of each token at each frame, float ``[tokens, frames]``.
        pause: score of a pause at each frame, float ``[frames]``.
        sizes: number of tokens of each word; their sum is the number of tokens.

    Returns:
        First frame of each word and the frame after its last one, int64 ``[words, 2]``.

    Raises:
        ValueError: there are more tokens than frames.
    """
    count, frames = tokens.shape
    if count > frames:
        raise ValueError(f"{count} tokens need as many frames, and the clip has {frames}")
    owners, places = _states(sizes)
    scores = np.concatenate((tokens, pause[None]))[places]
    path = owners[_best_path(scores, owners < 0)]
    return np.array([_ends_of(path == word) for word in range(len(sizes))], dtype=np.int64).reshape(-1, 2)


def _states(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each state its word (-1: a pause) and its row among the scores (-1: the last one, that of pauses)."""
    owners, places = [-1], [-1]
    bounds = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
    for word, (first, stop) in enumerate(pairwise(bounds.tolist())):
        owners += [word] * (stop - first) + [-1]
        places += [*range(first, stop), -1]
    return np.array(owners), np.array(places)


def _best_path(scores: np.ndarray, is_pause: np.ndarray) -> np.ndarray:
    """The state of each frame, int64 ``[frames]``, for scores ``[states, frames]``: pause, word, pause, word, …, pause."""
    states, frames = scores.shape
    entry = np.where(is_pause, -PAUSE_COST, 0.0)
    skips = np.where(np.concatenate(([False, False], is_pause[1:-1])), 0.0, _RULED_OUT)
    best = np.full(states, _RULED_OUT)
    best[:2] = scores[:2, 0]
    moves = np.zeros((frames, states), dtype=np.int8)
    options = np.full((3, states), _RULED_OUT)
    every = np.arange(states)
    for frame in range(1, frames):
        options[_STAY] = best
        options[_STEP, 1:] = best[:-1] + entry[1:]
        options[_SKIP, 2:] = best[:-2] + skips[2:]
        moves[frame] = options.argmax(axis=0)
        best = options[moves[frame], every] + scores[:, frame]
    return _trace(moves, states - 1 - int(best[-2] > best[-1]))


def _trace(moves: np.ndarray, last: int) -> np.ndarray:
    """Back from the last frame's state."""
    path = np.empty(len(moves), dtype=np.int64)
    for frame in reversed(range(len(moves))):
        path[frame] = last
        last -= int(moves[frame, last])
    return path


def _ends_of(here: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(here)
    return int(found[0]), int(found[-1]) + 1
