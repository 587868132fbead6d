"""Small sound files and manifests for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from training.data.tables import row_writer

RATE = 16_000


def sound(path: Path, seconds: float, rate: int = 8_000, seed: int = 0) -> Path:
    """A file of quiet noise, never silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate))
    soundfile.write(path, noise.astype(np.float32), rate)
    return path


def manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """``rows`` as a manifest in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as handle:
        put = row_writer(handle, path.suffix, columns)
        for row in rows:
            put(row)
    return path


def onset(samples: np.ndarray, rate: int, after: float) -> float:
    """When the sound begins, in seconds: the middle of the first 5 ms from ``after`` on with a tenth of the whole's RMS."""
    level = 0.1 * np.sqrt(np.mean(samples**2))
    length, step = round(0.005 * rate), round(0.001 * rate)
    start = round(after * rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples[start:], length)[::step]
    first = int(np.argmax(np.mean(frames**2, axis=1) > level**2))
    return (start + first * step + length / 2) / rate
