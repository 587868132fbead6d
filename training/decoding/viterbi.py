"""Forced alignment with CTC: the best path through the frames that spells given labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Aligned:
    """The place of a label: its first frame, the frame after its last, its highest log probability there."""

    start: int
    stop: int
    peak: float


def confidence(places: Sequence[Aligned]) -> float:
    """Geometric mean of the labels' highest probabilities, 0 to 1."""
    return math.exp(sum(place.peak for place in places) / len(places))


def align(log_probs: np.ndarray, ids: Sequence[int], blank: int) -> list[Aligned]:
    """The best path (Viterbi) that spells ``ids``: one place per label.

    log_probs is float ``[frames, vocabulary]``. Raises ``ValueError`` where the frames are too few.
    """
    if not len(ids):
        return []
    states = np.full(2 * len(ids) + 1, blank, dtype=np.int64)
    states[1::2] = ids
    path = _best_path(log_probs, states)
    return [
        _place(log_probs, path, state, int(i)) for state, i in zip(range(1, len(states), 2), ids, strict=True)
    ]


def _best_path(log_probs: np.ndarray, states: np.ndarray) -> np.ndarray:
    """State of every frame on the best path through ``blank, label, blank, label, …, blank``."""
    steps, scores = _forward(log_probs, states)
    state = len(states) - 1 if scores[-1] >= scores[-2] else len(states) - 2
    if not np.isfinite(scores[state]):
        raise ValueError(f"{len(states) // 2} labels cannot be aligned with {len(log_probs)} frames")
    path = np.empty(len(log_probs), dtype=np.int64)
    for frame in range(len(log_probs) - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    return path


def _forward(log_probs: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each state the number of states that the best path advanced to reach it, uint8 ``[frames, states]``, and the scores
    of the last frame.

    This table needs one byte per frame and state, so that an hour of audio can be aligned.
    """
    skips = np.zeros(len(states), dtype=bool)  # a label may follow another one directly unless they are equal
    skips[3::2] = states[3::2] != states[1:-2:2]
    scores = np.full(len(states), -np.inf)
    if len(log_probs):
        scores[:2] = log_probs[0, states[:2]]
    steps = np.zeros((len(log_probs), len(states)), dtype=np.uint8)
    moves = np.full((3, len(states)), -np.inf)
    for frame in range(1, len(log_probs)):
        moves[0] = scores
        moves[1, 1:] = scores[:-1]
        moves[2, 2:] = np.where(skips[2:], scores[:-2], -np.inf)
        steps[frame] = moves.argmax(axis=0)
        scores = moves.max(axis=0) + log_probs[frame, states]
    return steps, scores


def _place(log_probs: np.ndarray, path: np.ndarray, state: int, token: int) -> Aligned:
    start, stop = (int(i) for i in np.searchsorted(path, [state, state + 1]))
    return Aligned(start, stop, float(log_probs[start:stop, token].max()))
