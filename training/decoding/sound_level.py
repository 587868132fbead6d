"""The level of a clip over time, and the level below which nobody speaks."""

from __future__ import annotations

import numpy as np

ABOVE_QUIET = 6.0
"""Decibels by which speech is louder than the quietest tenth of the clip."""
BELOW_LOUD = 31.0
"""Decibels by which a pause is at least softer than the loudest twentieth of the clip. In a clean recording it decides:
breath and reverberation are louder than the quietest tenth. Chosen on one half of the voices of `benchmarks/word_times.py`."""
LEAST_SPAN = 10.0
"""Decibels between the loudest twentieth and the threshold at least: in a clip without pauses nothing is a pause."""
_EPSILON = 1e-9


def level_track(log_mel: np.ndarray) -> np.ndarray:
    """The level of each log-mel frame in decibels, float64 ``[frames]``; 0 dB is arbitrary.

    log_mel: Whisper's log-mels ``[mels, frames]``, (log10 of the power + 4) / 4.
    """
    power = 10.0 ** (4.0 * (log_mel.astype(np.float64) - 1.0))
    level = 10.0 * np.log10(power.sum(axis=0) + _EPSILON)
    return np.convolve(np.pad(level, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")


def pause_threshold(level: np.ndarray) -> float:
    """The level in decibels below which frames of this clip are a pause."""
    quiet, loud = np.percentile(level, [10, 95])
    return float(max(min(quiet + ABOVE_QUIET, loud - LEAST_SPAN), loud - BELOW_LOUD))
