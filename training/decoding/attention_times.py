"""Times of words from the cross-attention of a decoder that reads them, and from the level of the sound.

Attention alone does not know pauses: a word seems to begin where the one before it ended. Here a frame belongs to the token
that has the largest share of the attention to it, or to a pause where the sound is low; the best path decides for
the whole clip (`training.decoding.pause_path`). Next to a pause the level places the word's edge, in steps of 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from training.decoding.pause_path import word_spans
from training.decoding.sound_level import level_track, pause_threshold
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, FRAMES_PER_SECOND

LEAD = 3
"""Encoder frames by which attention is ahead of the sound: 60 ms. The decoder predicts a token from its first sounds, and
leaves it before its last. Chosen on one half of the voices of `benchmarks/word_times.py`."""
SMOOTHING = 3
"""Width of the median filter over time, in encoder frames."""
PAUSE_WEIGHT = 2.7
"""Score of a frame that is a pause for certain; a token that has all attention to a frame scores 1."""
SOFTNESS = 6.0
"""Decibels below (above) the threshold at which a frame is a pause (is none) for certain."""
REACH = 6
"""Log-mel frames around the path's edge of a word in which the level may place it."""
LEAST_SHARE = 0.25
"""Share of the attention to a word's own frames below which the attention does not show the word. With Whisper base it is
0.31 or more for every word of the English test speech, 0.6 to 0.8 for most. An attention that does not follow the sound, as that of
small models from scratch, gives a word about its share of the text's tokens."""
_TINY = 1e-9


@dataclass(frozen=True)
class Reading:
    """What a decoder has attended to while it read the words of a clip.

    weights: attention float32 ``[heads, tokens + 1, encoder frames]`` of the clip's own frames; row i is that of the step which
    predicts token i, the last row that of the end of the text. sizes: tokens of each word. seconds: length of the clip.
    log_mel: Whisper's log-mels of the clip ``[mels, frames]``.
    """

    weights: np.ndarray
    sizes: Sequence[int]
    seconds: float
    log_mel: np.ndarray


Times = list[tuple[float, float]]
"""Start and end of each word, in seconds from the start of the clip."""


def spoken_times(reading: Reading) -> Times:
    """Start and end of each word; pauses belong to none.

    Raises:
        ValueError: the words have more tokens than the clip has frames, or the attention does not follow the sound: the mean
            of the words' own shares is below `LEAST_SHARE`.
    """
    found, own = times_and_shares(reading)
    if own.mean() < LEAST_SHARE:
        raise ValueError("the attention does not follow the sound")
    return found


def times_and_shares(reading: Reading) -> tuple[Times, np.ndarray]:
    """Start and end of each word, and the share that its tokens have of the attention to its frames, float ``[words]``."""
    shares = token_shares(reading.weights[:, :-1])
    level = level_track(reading.log_mel)
    threshold = pause_threshold(level)
    spans = word_spans(shares, _pause_scores(level, threshold, shares.shape[1]), reading.sizes)
    times = _edges(spans / ENCODER_FRAMES_PER_SECOND, level > threshold)
    bounds = word_bounds(reading.sizes)
    own = [
        shares[a:b, first:stop].sum(axis=0).mean()
        for (a, b), (first, stop) in zip(bounds, spans.tolist(), strict=True)
    ]
    return [(min(a, reading.seconds), min(b, reading.seconds)) for a, b in times.tolist()], np.array(own)


def token_shares(weights: np.ndarray) -> np.ndarray:
    """Each token's share of the attention to each frame, float ``[tokens, frames]``, `LEAD` frames later than attended.

    weights: ``[heads, tokens, frames]``. A head that hardly attends to the clip hardly counts.
    """
    attended = median_filter(weights, SMOOTHING).mean(axis=0)
    lead = min(LEAD, attended.shape[1] - 1)
    attended = np.pad(attended, ((0, 0), (lead, 0)), mode="edge")[:, : attended.shape[1]]
    return attended / np.maximum(attended.sum(axis=0, keepdims=True), _TINY)


def median_filter(values: np.ndarray, width: int) -> np.ndarray:
    """Each value of the last axis becomes the median of the ``width`` (odd) around it; the ends are mirrored."""
    reach = width // 2
    if values.shape[-1] <= reach:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def _pause_scores(level: np.ndarray, threshold: float, frames: int) -> np.ndarray:
    """Score of a pause at each encoder frame, `PAUSE_WEIGHT` at most: two log-mel frames are one of the encoder's."""
    needed = 2 * frames
    padded = np.pad(level, (0, max(0, needed - len(level))), mode="edge")[:needed]
    below = threshold - padded.reshape(frames, 2).mean(axis=1)
    return PAUSE_WEIGHT * np.clip(below / SOFTNESS, -1.0, 1.0)


def _edges(times: np.ndarray, is_loud: np.ndarray) -> np.ndarray:
    """Starts and ends next to a pause, moved to the nearest change of ``is_loud`` within `REACH`; seconds ``[words, 2]``."""
    change = np.diff(is_loud.astype(np.int8))
    rises, falls = np.flatnonzero(change > 0) + 1, np.flatnonzero(change < 0) + 1
    frames = np.rint(times * FRAMES_PER_SECOND).astype(np.int64)
    starts = [*frames[1:, 0].tolist(), len(is_loud)]
    before = 0
    for i, after in enumerate(starts):
        start, end = frames[i].tolist()
        if start > before:
            start = _nearest(rises, start, before, end - 1)
        if end < after:
            end = _nearest(falls, end, start + 1, after)
        frames[i] = start, end
        before = end
    return frames / FRAMES_PER_SECOND


def _nearest(places: np.ndarray, wanted: int, least: int, most: int) -> int:
    """Of the places from ``least`` to ``most`` and within `REACH` the nearest one; ``wanted`` where there is none."""
    inside = places[(places >= max(least, wanted - REACH)) & (places <= min(most, wanted + REACH))]
    return int(inside[np.abs(inside - wanted).argmin()]) if len(inside) else wanted


def word_bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Of each word the place of its first token and the place after its last one."""
    stops = list(accumulate(sizes))
    return [(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]
