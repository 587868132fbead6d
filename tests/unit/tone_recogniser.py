"""Speech made of tones, one for each word, and a recogniser that hears them exactly: what it gets wrong is the cutting.

A word that is cut at the edge of what the recogniser hears becomes ``garbage``: half a word is never right by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from training.data.example import TRANSCRIBE, Example
from training.decoding.loading import Trained
from training.models.abilities import CtcFrames
from training.models.architecture import (
    Architecture,
    BatchCollator,
    BuildContext,
    ParameterGroups,
    UtteranceEncoder,
)

RATE = 16_000
WORD, GAP, FRAME = 0.3, 0.04, 0.01
WORDS = tuple(f"w{k}" for k in range(24))
TOKENS = (*(f"▁{word}" for word in WORDS), "▁garbage", "")
GARBAGE, BLANK = len(WORDS), len(WORDS) + 1


def speak(ids: list[int], pauses: dict[int, float] | None = None) -> np.ndarray:
    """A tone for each word, `GAP` between two; ``pauses``: seconds after the word at that place."""
    time = np.arange(round(WORD * RATE)) / RATE
    ramp = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.01)
    parts = [np.zeros(round(0.4 * RATE))]
    for place, k in enumerate(ids):
        parts.append(0.3 * ramp * np.sin(2 * np.pi * _frequency(k) * time))
        parts.append(np.zeros(round((pauses or {}).get(place, GAP) * RATE)))
    return np.concatenate([*parts, np.zeros(round(0.4 * RATE))]).astype(np.float32)


def _frequency(k: int) -> float:
    return 300.0 + 100.0 * k


def hear(waveform: np.ndarray) -> list[tuple[int, int, int]]:
    """(word, first frame, frame after the last) of every tone."""
    step = round(FRAME * RATE)
    frames = waveform[: len(waveform) // step * step].reshape(-1, step)
    loud = (np.square(frames).mean(axis=1) > 1e-3).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    found = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        whole = (end - start) * FRAME > 0.9 * WORD
        found.append((_word(waveform[start * step : end * step]) if whole else GARBAGE, start, end))
    return found


def _word(tone: np.ndarray) -> int:
    peak = np.abs(np.fft.rfft(tone * np.hanning(len(tone)))).argmax() * RATE / len(tone)
    return round((peak - 300.0) / 100.0)


def log_probs(waveform: np.ndarray) -> np.ndarray:
    """Frames that spell what is heard, one label in the middle of each tone's frames."""
    frames = np.full((int(len(waveform) / RATE / FRAME) + 1, len(TOKENS)), -12.0, dtype=np.float32)
    path = np.full(len(frames), BLANK)
    for k, start, end in hear(waveform):
        path[start + 2 : max(start + 3, end - 2)] = k
    frames[np.arange(len(frames)), path] = -0.01
    return frames


@dataclass(frozen=True)
class Encode(UtteranceEncoder):
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return {"id": example.id, "seconds": len(waveform) / RATE, "waveform": waveform}

    def check(self, example: Example, seconds: float) -> None:
        return None


@dataclass(frozen=True)
class Collate(BatchCollator):
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, features: Any) -> dict[str, Any]:
        return {
            "waveforms": [row["waveform"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
        }


@dataclass(frozen=True, kw_only=True)
class ToneWords(Architecture):
    """A word for each tone."""

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Any:
        raise NotImplementedError

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups()

    @property
    def positions(self) -> int:
        return 1000

    def generate(
        self, batch: Any, *, model: Any = None, states: Any = None, **generation: Any
    ) -> dict[str, torch.Tensor]:
        rows = [[k for k, _, _ in hear(waveform)] for waveform in batch["waveforms"]]
        width = max(map(len, rows))
        return {
            TRANSCRIBE: torch.tensor([row + [BLANK] * (width - len(row)) for row in rows], dtype=torch.long)
        }

    def text(self, ids: Any) -> str:
        return " ".join(TOKENS[i].removeprefix("▁") for i in ids if i != BLANK)


def recogniser(*, ctc: bool) -> Trained:
    """With frames and so with times, or text alone."""
    frames = CtcFrames(
        tokens=TOKENS,
        blank=BLANK,
        seconds_per_frame=FRAME,
        log_probs=lambda model, batch, states=None: [log_probs(waveform) for waveform in batch["waveforms"]],
    )
    model: Any = torch.nn.Linear(1, 1)
    architecture = ToneWords(
        languages=("en", "en"),
        model=model,
        processor=None,
        tasks=(TRANSCRIBE,),
        sample_rate=RATE,
        encode=Encode(),
        collate=Collate(),
        frames=frames if ctc else None,
    )
    return Trained(architecture, Path("tones"), "tones", None)


def write(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, waveform, rate)
    return path
