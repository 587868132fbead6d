"""Training on shards by the literal commands: killed and resumed, on two processes, dry, evaluated."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_project

from training.data.manifest import load_manifest
from training.data.sources.shards.write import write_shards

pytestmark = [pytest.mark.recipe]
SHARDS = """data:
  shards: {{train: [{folder}/shards/train, {folder}/shards/train_normal], dev: {folder}/shards/dev, test: {folder}/shards/dev,
    domains: {{train: dyslexic, train_normal: normal}}, default_domain: normal, shuffle_buffer: 4,
    balance: {{dyslexic: 1.5}}}}
"""


def polyvox(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.cli", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env=tiny_project.environment(),
        cwd=tiny_project.ROOT,
    )


def make(folder: Path, **options: int) -> Path:
    """The tiny project with its manifests as shards: nine clips in three shards for each of two domains."""
    folder.mkdir(exist_ok=True)
    config = tiny_project.make(folder, **options)
    for split, name in (("train", "train"), ("train", "train_normal"), ("dev", "dev")):
        output = folder / "shards" / name
        source = load_manifest(folder / f"{split}.csv")
        write_shards(source, output, samples_per_shard=3)
    lines = config.read_text(encoding="utf8").splitlines(keepends=True)
    text = "".join(SHARDS.format(folder=folder) if line.startswith("data:") else line for line in lines)
    config.write_text(text, encoding="utf8")
    return config


def killed_at(folder: Path, config: Path, step: int, *arguments: str) -> None:
    """Run the command and end it with SIGKILL when ``step`` is logged."""
    process = subprocess.Popen(
        tiny_project.command(config, *arguments), env=tiny_project.environment(), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and max(tiny_project.losses(folder), default=0) < step:
        assert time.monotonic() < deadline, "the run does not get anywhere"
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_run_goes_on_at_the_next_sample(tmp_path: Path) -> None:
    """In the second epoch, with workers and a domain of which an epoch draws some twice: the losses stay bit-equal."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = "training.max_steps=30"
    finished = tiny_project.train(make(whole, workers=1), steps)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    config = make(killed, workers=1)
    killed_at(killed, config, 16, steps)
    resumed = tiny_project.train(config, steps, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert tiny_project.losses(killed) == tiny_project.losses(whole)
    assert len(tiny_project.losses(whole)) == 30


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = tiny_project.train(make(one, dropout=0), "training.gradient_accumulation_steps=2")
    assert alone.returncode == 0, alone.stderr
    spread = tiny_project.train(make(two, dropout=0), ranks=2)
    assert spread.returncode == 0, spread.stderr
    assert tiny_project.losses(two) == pytest.approx(tiny_project.losses(one), rel=2e-5)


def test_dry_run_and_evaluation(tmp_path: Path) -> None:
    config = make(tmp_path)
    dry = polyvox(
        "train", "--config", str(config), "--dry_run", "training.eval_strategy=steps", "training.max_steps=-1"
    )
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "train          18 utterances" in dry.stdout
    assert "ids repeat from folder to folder" in dry.stdout
    assert "2 samples have no domain and get data.shards.default_domain, 'normal'" in dry.stdout
    # 9 + round(1.5 * 9) = 23 samples in batches of two
    assert "12 steps per epoch, 36 in all" in dry.stdout
    assert tiny_project.train(config, "training.max_steps=2").returncode == 0
    scored = polyvox(
        "evaluate",
        "--model_dir",
        str(tmp_path / "run"),
        "--output",
        str(tmp_path / "results"),
        "--evaluation",
        "silence_probes=false",
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    config = make(tmp_path)
    gone = tmp_path / "gone"
    override = f"data.shards.train=[{gone}/train, {gone}/train_normal]"
    dry = polyvox("train", "--config", str(config), "--dry_run", override)
    assert f"missing: {gone}/train (make it with polyvox shards write" in dry.stdout, dry.stderr
    run = tiny_project.train(config, override)
    assert run.returncode == 2 and f"{gone}/train: no such folder of shards" in run.stderr
