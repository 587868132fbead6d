"""A small spectrogram of a clip as PNG."""

from __future__ import annotations

import io

import numpy as np

WINDOW, HOP = 400, 160
"""Samples at 16 kHz: 25 and 10 ms, as the models' log-mels have them."""
FLOOR_DB = 70.0
"""Decibels below the loudest point that are black."""
HEIGHT, WIDEST = 120, 900
"""Pixels."""


def spectrogram(sound: bytes) -> bytes:
    """Levels of the frequencies over time, light is loud, 0 Hz at the bottom.

    Args:
        sound: a file that soundfile reads.

    Returns:
        PNG, grey, at most `WIDEST` by `HEIGHT` pixels.
    """
    import soundfile
    from PIL import Image

    samples, _ = soundfile.read(io.BytesIO(sound), dtype="float32")
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    padded = np.pad(mono, (0, max(0, WINDOW - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    decibels = 10 * np.log10(power + 1e-12)
    levels = np.clip((decibels - decibels.max() + FLOOR_DB) / FLOOR_DB, 0, 1).T[::-1]
    rows = np.linspace(0, levels.shape[0] - 1, HEIGHT).round().astype(int)
    columns = np.linspace(0, levels.shape[1] - 1, min(levels.shape[1], WIDEST)).round().astype(int)
    file = io.BytesIO()
    Image.fromarray((255 * levels[np.ix_(rows, columns)]).astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()
