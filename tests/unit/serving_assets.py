"""A server in a process of its own, and tiny models for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ctc_assets
import numpy as np
import soundfile
import whisper_assets
from export_assets import saved as saved_model

from training.models.common import SETTINGS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from served import Server

__all__ = ["Server", "clip", "error_of", "models", "speech", "stock_whisper"]
RATE = 16_000


def models(folder: Path) -> dict[str, Path]:
    """A CTC model and a Whisper for both tasks, weights random: their texts mean nothing, and are always the same."""
    ctc = ctc_assets.saved(ctc_assets.tiny(ctc_assets.CONVOLUTIONS), folder / "ctc")
    whisper = saved_model(folder / "whisper", "whisper", encoder_context="full", target_language="en")
    return {"ctc": ctc, "whisper": whisper}


def stock_whisper(folder: Path) -> Path:
    """A multilingual Whisper as another library leaves it: its folder names no language."""
    made = whisper_assets.tiny()
    made.save(folder, made.model)
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    del config[SETTINGS]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    return folder


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of tones with pauses between them, float32 at `RATE`."""
    draw = np.random.default_rng(seed)
    time_ = np.arange(round(seconds * RATE)) / RATE
    loud = (np.sin(2 * np.pi * 0.4 * time_ + draw.uniform(0, 6)) > -0.3).astype(float)
    tone = np.sin(2 * np.pi * (200 + 150 * np.sin(2 * np.pi * 3 * time_)) * time_)
    return (0.3 * loud * tone + 0.003 * draw.standard_normal(len(time_))).astype(np.float32)


def clip(path: Path, seconds: float = 1.5, seed: int = 0, rate: int = RATE) -> Path:
    """A file of `speech`; the suffix chooses the format."""
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for block in np.array_split(speech(seconds, seed), max(1, round(seconds / 10))):
            file.write(block)  # at once libsndfile's Vorbis breaks
    return path


def error_of(body: bytes) -> dict[str, Any]:
    """The ``error`` of an answer, in OpenAI's form."""
    found = json.loads(body)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found
