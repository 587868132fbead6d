"""``polyvox quick-train`` on a project of seconds, killed in the middle: the next call goes on and does nothing twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import tiny_project

pytestmark = [pytest.mark.recipe, pytest.mark.slow]
SENTENCES = ("a cat sat on the mat", "the dog ran home", "we met at noon", "she sells sea shells")
SHARED = """
paths: {{splits_dir: {folder}, output_dir: {folder}/outputs}}
data: {{audio_root: null}}
dataloader: {{num_workers: 0, pin_memory: false}}
profile: {{device: cpu}}
evaluation: {{max_new_tokens: 40, resamples: 10, silence_probes: false}}
training: {{batch_size: 2, max_steps: {steps}, learning_rate: 1.0e-3, logging_steps: 1, eval_strategy: "no",
           save_strategy: steps, save_steps: 1, save_total_limit: null, report_to: none{phase2}}}
"""
VOXLM = """
model:
  type: voxlm
  audio_encoder: ${paths.output_dir}/tiny_encoder
  llm: ${paths.output_dir}/tiny_llm
  encoder_context: trimmed
  max_label_tokens: 64
  aligner: {width: 16, layers: 1, heads: 2}
"""
WHISPER = """
model:
  type: whisper
  language: en
  task: transcribe
  encoder_context: trimmed
  full_context_share: 0.0
  max_label_tokens: 64
  sizes: {vocab_size: 320, d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
          decoder_attention_heads: 2, encoder_ffn_dim: 64, decoder_ffn_dim: 64}
"""
SMALL = ("llm:steps=3", "llm:vocab_size=300", "llm:hidden_size=32", "llm:layers=1", "llm:heads=2")


def make(folder: Path, copies: int = 4) -> Path:
    """Noise with texts and evenly spread word times, and the configurations of a VoxLM and of its encoder.

    ``copies`` of each utterance in dev and test: a model that has learnt nothing says two words a clip, of which the
    calibration wants fifty in all.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        seconds, text = 1.0 + 0.05 * i, SENTENCES[i % len(SENTENCES)]
        soundfile.write(folder / f"clip{i}.wav", rng.standard_normal(int(16000 * seconds)) * 0.1, 16000)
        words = text.split()
        step = seconds / len(words)
        times = [[word, k * step, (k + 1) * step] for k, word in enumerate(words)]
        rows.append(
            {
                "id": f"u{i}",
                "audio_path": f"clip{i}.wav",
                "duration": seconds,
                "transcript": text,
                "words": json.dumps(times),
            }
        )
    for name in ("train", "dev", "test"):
        with (folder / f"{name}.csv").open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            numbers = range(1 if name == "train" else copies)
            writer.writerows({**row, "id": f"{row['id']}_{number}"} for number in numbers for row in rows)
    shared = {"folder": folder, "phase2": ""}
    encoder = WHISPER + SHARED.format(steps=2, **shared)
    (folder / "tiny_encoder.yaml").write_text(encoder, encoding="utf8")
    config = folder / "tiny.yaml"
    shared["phase2"] = ", phase2: {max_steps: 2}"
    config.write_text(VOXLM + SHARED.format(steps=8, **shared), encoding="utf8")
    return config


def kill_in_phase1(process: subprocess.Popen[str], outputs: Path) -> None:
    """Both the command and its task, as soon as three steps are saved."""
    deadline = time.monotonic() + 1500
    while not (outputs / "tiny/checkpoint-3/complete.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    running = json.loads((outputs / ".quick_tiny.json").read_text(encoding="utf8"))["running"]
    assert running["key"] == "train tiny"
    for pid in (process.pid, running["pid"]):
        psutil.Process(pid).send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_call_goes_on_to_the_exported_model(tmp_path: Path) -> None:
    config, outputs = make(tmp_path), tmp_path / "outputs"
    call = [sys.executable, "-m", "training.cli", "quick-train", str(config)]
    call += ["--export", str(tmp_path / "exported"), *SMALL]
    environment = {**tiny_project.environment(), "PYTHONPATH": os.fspath(tiny_project.ROOT)}
    process = subprocess.Popen(call, env=environment, start_new_session=True, text=True)
    kill_in_phase1(process, outputs)
    kept = [
        outputs / "tiny_encoder/train_results.json",
        outputs / "tiny_llm/model.safetensors",
        outputs / "tiny/checkpoint-1/complete.json",
    ]
    before = [path.stat().st_mtime_ns for path in kept]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.stat().st_mtime_ns for path in kept] == before
    history = json.loads((outputs / "tiny/metrics/tiny_metrics.json").read_text(encoding="utf8"))["history"]
    assert [row["step"] for row in history if "loss" in row] == list(range(1, 9))
    assert "[2/8] Encoder and language model: nothing to do (" in done.stdout
    metrics = json.loads((outputs / "results/tiny_phase2_metrics.json").read_text(encoding="utf8"))
    assert "wer" in metrics["scores"] and "tiny_phase2: wer" in done.stdout
    names = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"model.safetensors", "config.json", "config.yaml", "calibration.json", "README.txt"} <= names
    assert not any(name.startswith(("checkpoint", "dropped")) for name in names)


def test_a_smoke_run_reaches_its_export(tmp_path: Path) -> None:
    """One step of each training: the model says too little for a calibration, and is exported all the same."""
    config = make(tmp_path, copies=1)
    one = ("training.max_steps=1", "training.phase2.max_steps=1", "encoder:training.max_steps=1")
    done = tiny_project.polyvox("quick-train", config, "--export", tmp_path / "exported", *one, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not calibrated: " in done.stdout and "are too few to fit a confidence" in done.stdout
    names = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"model.safetensors", "config.json", "config.yaml", "README.txt"} <= names
    assert "calibration.json" not in names
    assert "is not calibrated" in (tmp_path / "exported" / "README.txt").read_text(encoding="utf8")
