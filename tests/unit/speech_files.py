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
