"""`polyvox tune` by its literal command: killed, stopped, gone on with, and its result given to train.py."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_project

pytest.importorskip("optuna", reason="the extra tune is not installed")
pytestmark = pytest.mark.recipe

MODEL = """
model: {type: ctc, encoder: transformer, subsampling: 2, subsampling_channels: 8, d_model: 16, num_encoder_layers: 1,
        num_heads: 2, d_ff: 32, n_mels: 16, dropout: 0.0}
"""
SEARCH = ("--search", "training.learning_rate=log:1e-4:1e-1", "training.batch_size=choice:2,3")
SETTINGS = (
    "training.max_steps=6",
    "training.eval_strategy=steps",
    "training.eval_steps=2",
    "training.save_steps=2",
    "training.metric_for_best_model=eval_loss",
)


def make(folder: Path) -> Path:
    """The tiny project with a CTC model, and no test split: nobody may look for it."""
    config = tiny_project.make(folder, dropout=0.0)
    rest = config.read_text(encoding="utf8").split("\ndata:", 1)[1]
    rest = rest.replace(f"test: {folder}/dev.csv", f"test: {folder}/nowhere.csv")
    config.write_text(f"{MODEL}\ndata:{rest}", encoding="utf8")
    return config


def command(config: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "training.cli", "tune", "--config", str(config), "--trials", "3"),
        *(*SETTINGS, *SEARCH),
    ]


def environment() -> dict[str, str]:
    return {**tiny_project.environment(), "PYTHONPATH": str(tiny_project.ROOT)}


def run_until(config: Path, begin: str, number: int) -> tuple[int, str]:
    """Send the signal when a printed line begins so; the exit status and what was printed."""
    process = subprocess.Popen(
        command(config), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith(begin) and process.poll() is None:
            os.kill(process.pid, number)
            begin = "never again"
    return process.wait(timeout=120), printed


def rows(config: Path) -> list[dict[str, str]]:
    with (config.parent / "run_tune" / "trials.tsv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_killed_stopped_and_gone_on_with(tmp_path: Path) -> None:
    config = make(tmp_path)
    assert run_until(config, "trial 1:", signal.SIGKILL)[0] == -signal.SIGKILL
    status, printed = run_until(config, "  step 2/6", signal.SIGINT)
    assert status == 130, printed
    assert printed.splitlines()[-1] == "SIGINT: 1 of 3 trials are finished; the same command goes on"
    assert "Traceback" not in printed
    done = subprocess.run(command(config), env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr

    found = rows(config)
    assert [row["outcome"] for row in found] == ["complete", "killed", "stopped", "complete", "complete"]
    values = [(row["training.learning_rate"], row["training.batch_size"]) for row in found]
    assert values[0] == ("0.001", "2"), "the configuration's own values come first"
    assert values[1] == values[2] == values[3] != values[4]
    best = min(
        (row for row in found if row["outcome"] == "complete"), key=lambda row: float(row["eval_loss"])
    )
    folder = tmp_path / "run_tune"
    assert [path.parent.name for path in folder.glob("*/model.safetensors")] == [
        f"trial_{int(best['trial']):04d}"
    ]
    result = folder / "best.yaml"
    tried = tiny_project.train(result, "--dry_run")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    trained = tiny_project.train(result)
    assert trained.returncode == 0, trained.stderr
    # The same seed and the same values: the run of the best trial once more.
    again = (tmp_path / "run_best" / "model.safetensors").read_bytes()
    assert again == (folder / f"trial_{int(best['trial']):04d}" / "model.safetensors").read_bytes()
