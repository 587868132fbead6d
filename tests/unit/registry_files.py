"""Recordings and tables for tests of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from training.registry.prepare import Prepared, Settings, prepare
from training.registry.store import Registry, open_registry

RATE = 8_000
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def noise(path: Path, seconds: float = 1.0, *, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
    """A file of noise; another seed, another content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * rate), channels))
    soundfile.write(path, samples, rate)
    return path


def corpus(folder: Path, rows: int = 12, speakers: int = 4, first: int = 0) -> Path:
    """``rows`` recordings of one second and ``metadata.csv`` as guides have it, without splits."""
    lines = ["file_path,transcript,duration,split,speaker_id"]
    for i in range(first, first + rows):
        noise(folder / "raw" / f"{i}.wav", seed=i)
        lines.append(f"raw/{i}.wav,{WORDS[i % 12]} {WORDS[i // 12 % 12]},1.0,,s{i % speakers}")
    return table(folder / "metadata.csv", lines)


def table(path: Path, lines: Sequence[str]) -> Path:
    """``lines`` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def settings(source: Path, **changes: object) -> Settings:
    """Into ``registry.db`` beside the table; rows are split by sentence."""
    values = {
        "database": str(source.parent / "registry.db"),
        "auto_split": True,
        "strategy": "text",
        "workers": 1,
    }
    return Settings(table=source, **{**values, **changes})  # type: ignore[arg-type]


def imported(source: Path, **changes: object) -> Prepared:
    """`prepare` with `settings`."""
    return prepare(settings(source, **changes))


def opened(source: Path) -> Registry:
    """The registry that `imported` fills."""
    return open_registry(source.parent / "registry.db")
