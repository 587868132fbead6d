"""A project of a minute whose model really recognises: each word is a tone, some under noise, with the times of all words."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tiny_project

RATE = 8000
WORDS = ("a", "e", "i", "o", "u", "y")
CONFIG = """
model: {{type: ctc, encoder: transformer, conv_kernel: 5, feature_norm: clip, subsampling: 4, subsampling_channels: 16,
        d_model: 48, num_encoder_layers: 1, num_heads: 2, d_ff: 96, n_mels: 32, dropout: 0.0, sample_rate: {rate},
        languages: [en]}}
audio: {{sample_rate: {rate}, max_length_seconds: 5}}
data: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/test.csv}}
training: {{batch_size: 16, max_steps: {steps}, learning_rate: 5.0e-3, warmup_ratio: 0.1, logging_steps: 20,
           eval_strategy: "no", save_strategy: steps, save_steps: {steps}, report_to: none, cpu_threads: 1}}
evaluation: {{resamples: 200}}
dataloader: {{num_workers: 0, pin_memory: false}}
profile: {{device: cpu}}
output: {{dir: {folder}/run, experiment_name: tones}}
"""


def utterance(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Two to five words and pauses; noise of any strength, under which some are lost."""
    parts, words = [np.zeros(int(RATE * rng.uniform(0.1, 0.4)))], []
    for k in rng.integers(len(WORDS), size=rng.integers(2, 6)).tolist():
        time = np.arange(int(RATE * rng.uniform(0.2, 0.35))) / RATE
        start = sum(map(len, parts)) / RATE
        words.append((WORDS[k], round(start, 3), round(start + len(time) / RATE, 3)))
        tone = np.sin(2 * np.pi * 300 * 1.35**k * time) * np.minimum(1, 40 * np.minimum(time, time[::-1]))
        parts += [0.2 * tone, np.zeros(int(RATE * rng.uniform(0.2, 0.4)))]
    sound = np.concatenate(parts)
    return sound + 0.2 * 10 ** rng.uniform(-2, 0) * rng.standard_normal(len(sound)), words


def make(folder: Path, *, steps: int = 240) -> Path:
    """Write the project; returns the configuration's path."""
    rng = np.random.default_rng(0)
    for name, clips in (("train", 240), ("dev", 60), ("test", 60)):
        with (folder / f"{name}.csv").open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(
                file, ["id", "audio_path", "duration", "transcript", "words", "speaker", "domain"]
            )
            writer.writeheader()
            writer.writerows(_row(folder, f"{name}{n}", rng, n) for n in range(clips))
    config = folder / "tones.yaml"
    config.write_text(CONFIG.format(folder=folder, rate=RATE, steps=steps), encoding="utf8")
    return config


def _row(folder: Path, name: str, rng: np.random.Generator, number: int) -> dict[str, Any]:
    sound, words = utterance(rng)
    soundfile.write(folder / f"{name}.wav", np.clip(sound, -1, 1), RATE)
    return {
        "id": name,
        "audio_path": f"{name}.wav",
        "duration": len(sound) / RATE,
        "transcript": " ".join(word for word, _, _ in words),
        "words": json.dumps(words),
        "speaker": f"{name[:2]}{number % 3}",
        "domain": ("even", "odd")[number % 2],
    }


if __name__ == "__main__":
    project = Path(sys.argv[1])
    project.mkdir(parents=True, exist_ok=True)
    done = tiny_project.train(make(project))
    print(done.stdout, done.stderr, sep="\n")
