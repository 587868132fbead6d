"""A project of seconds: noise clips, a manifest, a configuration of a tiny Whisper, and its training command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]
SENTENCES = (
    "Xin chào các bạn",
    "Hôm nay trời đẹp quá",
    "Chúng ta có meeting lúc ba giờ",
    "Mẹ nấu cơm chưa",
    "Em gửi file cho anh rồi nhé",
    "Cuối tuần này mình đi chơi",
    "Anh uống cà phê không",
    "Ngày mai em nghỉ",
    "Deadline là thứ hai",
)
CONFIG = """
model:
  type: whisper
  encoder_context: trimmed
  full_context_share: 0.0
  max_label_tokens: 64
  sizes: {{vocab_size: 320, d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
          decoder_attention_heads: 2, encoder_ffn_dim: 64, decoder_ffn_dim: 64, dropout: {dropout}}}
data: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/dev.csv}}
training: {{batch_size: 2, max_steps: 12, learning_rate: 1.0e-3, logging_steps: 1, eval_strategy: "no",
           save_strategy: steps, save_steps: 1, save_total_limit: 3, report_to: none}}
dataloader: {{num_workers: {workers}, pin_memory: false}}
profile: {{device: cpu}}
output: {{dir: {folder}/run, experiment_name: tiny}}
"""


def make(folder: Path, *, clips: int = 9, dropout: float = 0.1, workers: int = 0) -> Path:
    """Write the project; returns the configuration's path."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(clips):
        seconds = 0.6 + 0.1 * i
        soundfile.write(folder / f"clip{i}.wav", rng.standard_normal(int(16000 * seconds)) * 0.1, 16000)
        text = SENTENCES[i % len(SENTENCES)]
        rows.append({"id": f"u{i}", "audio_path": f"clip{i}.wav", "duration": seconds, "transcript": text})
    for name, part in (("train", rows), ("dev", rows[:2])):
        with (folder / f"{name}.csv").open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "translation"])
            writer.writeheader()
            writer.writerows({**row, "translation": row["transcript"].lower()} for row in part)
    config = folder / "tiny.yaml"
    config.write_text(CONFIG.format(folder=folder, dropout=dropout, workers=workers), encoding="utf8")
    return config


def with_domains(path: Path) -> None:
    """Adults and children by turns in a manifest's column ``domain``."""
    with path.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "domain"])
        writer.writeheader()
        writer.writerows({**row, "domain": ("adult", "child")[n % 2]} for n, row in enumerate(rows))


def environment() -> dict[str, str]:
    """One thread, no hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def command(config: Path, *arguments: str, ranks: int = 1) -> list[str]:
    """``python training/scripts/train.py --config …``, under torch's launcher for several ranks."""
    launcher = (
        ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--standalone"] if ranks > 1 else []
    )
    script = str(ROOT / "training" / "scripts" / "train.py")
    return [sys.executable, *launcher, script, "--config", str(config), *arguments]


def polyvox(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``polyvox …`` of this checkout, run to its end; in the folder ``cwd``."""
    return subprocess.run(
        [sys.executable, "-m", "training.cli", *map(str, arguments)],
        env={**environment(), "PYTHONPATH": os.fspath(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf8",
        timeout=300,
        check=False,
    )


def train(config: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(config, *arguments, ranks=ranks),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def history(folder: Path) -> list[dict[str, Any]]:
    """The run's logged records so far."""
    path = folder / "run" / "metrics" / "tiny_metrics.json"
    return json.loads(path.read_text(encoding="utf8"))["history"] if path.is_file() else []


def losses(folder: Path) -> dict[int, float]:
    """Loss by step."""
    return {row["step"]: row["loss"] for row in history(folder) if "loss" in row}
