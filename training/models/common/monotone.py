"""From pointers over frames to word times that stay in order: a dynamic programme and a step below the frame."""

from __future__ import annotations

import numpy as np

REACH = 2
"""Frames on either side of the chosen one that are used to place the time between frames."""
RULED_OUT = -1e4
"""Used instead of log 0: a path with it is worse than any other and still finite."""


def word_times(
    start_log_probs: np.ndarray, end_log_probs: np.ndarray, frame_seconds: float, seconds: float
) -> np.ndarray:
    """Start and end of every word in seconds, float64 ``[words, 2]``, of pointers ``[words, frames]``.

    The frames are those of the clip alone, without padding; a start is the beginning of its frame, an end the
    end of it. The likeliest frames in order (`best_path`) are moved by the mean of the probabilities around
    them, then kept in order and within the clip: 0 <= start_1 < end_1 <= start_2 … <= seconds. A word is at
    least a frame long, or as long as leaves room for all of them in a clip that is shorter than that.

    Raises ``ValueError`` for words without a frame, and for pointers of different shapes.
    """
    if start_log_probs.shape != end_log_probs.shape:
        raise ValueError(f"starts {start_log_probs.shape} and ends {end_log_probs.shape} differ in shape")
    words, frames = start_log_probs.shape
    if not words:
        return np.zeros((0, 2))
    if not frames or seconds <= 0:
        raise ValueError(f"{words} words cannot be aligned with {frames} frames ({seconds} s)")
    starts, ends = (
        np.maximum(pointer, RULED_OUT, dtype=np.float64) for pointer in (start_log_probs, end_log_probs)
    )
    first, last = best_path(starts, ends).T
    positions = np.stack((_mean_around(starts, first), _mean_around(ends, last) + 1), axis=1)
    return _in_order(positions * frame_seconds, min(frame_seconds, seconds / words), seconds)


def best_path(start_scores: np.ndarray, end_scores: np.ndarray) -> np.ndarray:
    """First and last frame of every word, int64 ``[words, 2]``, with the largest sum of scores.

    Scores are finite ``[words, frames]``. No frame belongs to two words: first_1 <= last_1 < first_2 <= last_2 …;
    only where there are more words than frames may neighbours share one. Takes O(words × frames): the best
    way to have come to a frame is a running maximum.
    """
    words, frames = start_scores.shape
    apart = int(words <= frames)
    score, came = np.zeros(frames), np.zeros((words, 2, frames), dtype=np.int64)
    for i in range(words):
        if i:
            score, came[i, 0] = _best_so_far(score, apart)
        score, came[i, 1] = _best_so_far(score + start_scores[i], 0)
        score = score + end_scores[i]
    return _trace(came, int(score.argmax()))


def _best_so_far(scores: np.ndarray, apart: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest score up to ``apart`` frames before each frame, and the frame that has it."""
    best = np.maximum.accumulate(scores)
    where = np.maximum.accumulate(np.where(scores == best, np.arange(len(scores)), 0))
    if apart:
        return np.append(-np.inf, best[:-1]), np.append(0, where[:-1])
    return best, where


def _trace(came: np.ndarray, last: int) -> np.ndarray:
    """Back from the last word's last frame."""
    path = np.empty((len(came), 2), dtype=np.int64)
    for i in reversed(range(len(came))):
        first = came[i, 1, last]
        path[i] = first, last
        last = came[i, 0, first]
    return path


def _mean_around(log_probs: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean position, in frames, of the probability within `REACH` of each word's chosen frame."""
    around = chosen[:, None] + np.arange(-REACH, REACH + 1)
    inside = (around >= 0) & (around < log_probs.shape[1])
    near = np.take_along_axis(log_probs, around.clip(0, log_probs.shape[1] - 1), axis=1)
    near = np.where(inside, near, -np.inf)
    weights = np.exp(near - near.max(axis=1, keepdims=True))
    return (weights * around).sum(axis=1) / weights.sum(axis=1)


def _in_order(times: np.ndarray, shortest: float, seconds: float) -> np.ndarray:
    """Times moved as little as it takes for words at least ``shortest`` seconds long, in order, in the clip.

    Less the length that the words before it take at least, every time must not fall. Of two that
    contradict each other neither is right alone: both move halfway.
    """
    taken = shortest * ((np.arange(times.size) + 1) // 2)
    free = (times.ravel() - taken).clip(0.0, max(0.0, seconds - taken[-1]))
    pushed, pulled = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    return ((pushed + pulled) / 2 + taken).clip(0.0, seconds).reshape(times.shape)
