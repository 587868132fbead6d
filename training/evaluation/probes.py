"""Clips without speech, to count what a model says about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from training.data.example import AudioRef, Example

SECONDS = 4.0
KINDS = ("silence", "noise", "music")
PER_KIND = 8
MOST_TOKENS = 64
"""Tokens of a hypothesis at most: more words than four seconds hold, and loops end."""


def probe_waveform(kind: str, number: int, sample_rate: int) -> np.ndarray:
    """Float32 mono of `SECONDS`: digital silence, noise of falling level, or chords with overtones."""
    rng = np.random.default_rng([KINDS.index(kind), number])
    samples = int(SECONDS * sample_rate)
    if kind == "silence":
        return np.zeros(samples, dtype=np.float32)
    if kind == "noise":
        return (rng.standard_normal(samples) * 10 ** (-1 - number / 4)).astype(np.float32)
    return _music(rng, samples, sample_rate)


def _music(rng: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
    """A chord every half second: equal-tempered notes with four overtones each and a decay."""
    beat = sample_rate // 2
    time = np.arange(beat) / sample_rate
    chords = []
    for _ in range(-(-samples // beat)):
        notes = 220.0 * 2 ** (rng.choice(25, size=3, replace=False) / 12)
        waves = [np.sin(2 * np.pi * note * k * time) / k for note in notes for k in range(1, 5)]
        chords.append(np.sum(waves, axis=0) * np.exp(-3 * time))
    sound = np.concatenate(chords)[:samples]
    return (0.2 * sound / np.abs(sound).max()).astype(np.float32)


class Probes:
    """The probe clips as a dataset of encoded utterances, as `predict` takes it."""

    def __init__(
        self,
        encode: Callable[[Example, np.ndarray], dict[str, Any]],
        sample_rate: int,
        domain: str | None = None,
    ) -> None:
        self.encode, self.sample_rate = encode, sample_rate
        self.names = [(kind, i) for kind in KINDS for i in range(1 if kind == "silence" else PER_KIND)]
        self.manifest = [
            Example(id=f"{kind}-{i}", audio=AudioRef(path=""), duration=SECONDS, texts={}, domain=domain)
            for kind, i in self.names
        ]
        self.durations = np.full(len(self.names), SECONDS, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> dict[str, Any]:
        kind, number = self.names[row]
        return self.encode(self.manifest[row], probe_waveform(kind, number, self.sample_rate))

    def kind(self, row: int) -> str:
        """The kind of the clip of this row."""
        return self.names[row][0]
