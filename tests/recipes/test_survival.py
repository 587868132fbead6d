"""Runs that are killed, stopped, resumed, spread over processes: the same losses in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import tiny_project

pytestmark = [pytest.mark.recipe]
KILLS = 10


def run_until(
    folder: Path, config: Path, step: int, *arguments: str, number: int, group: bool = False
) -> str:
    """Start the command, send the signal when ``step`` is logged, wait; returns what it printed."""
    process = subprocess.Popen(
        tiny_project.command(config, *arguments),
        env=tiny_project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and max(tiny_project.losses(folder), default=0) < step:
        assert time.monotonic() < deadline, "the run does not get anywhere"
        time.sleep(0.01)
    if process.poll() is None:
        (os.killpg if group else os.kill)(process.pid, number)
    return process.communicate(timeout=120)[0]


@pytest.mark.slow
def test_ten_kills_at_random_steps_leave_the_losses_bit_equal(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    steps = "training.max_steps=44"
    finished = tiny_project.train(tiny_project.make(whole), steps)
    assert finished.returncode == 0, finished.stderr
    config = tiny_project.make(killed)
    targets = sorted(random.Random(7).sample(range(2, 42), KILLS))
    for target in targets:
        begun = (killed / "run").exists()
        run_until(killed, config, target, steps, *(["--resume"] if begun else []), number=signal.SIGKILL)
    last = tiny_project.train(config, steps, "--resume")
    assert last.returncode == 0, last.stdout + last.stderr
    assert tiny_project.losses(killed) == tiny_project.losses(whole)
    assert len(tiny_project.losses(whole)) == 44


@pytest.mark.parametrize("group", [False, True])
def test_sigterm_saves_first_and_the_run_goes_on(tmp_path, group):
    """Sent to the command alone, or to its whole process group with the data workers in it."""
    config = tiny_project.make(tmp_path, workers=1)
    printed = run_until(tmp_path, config, 3, number=signal.SIGTERM, group=group)
    assert "saved in" in printed and "--resume" in printed, printed
    stopped_at = max(tiny_project.losses(tmp_path))
    assert stopped_at < 12
    resumed = tiny_project.train(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(tiny_project.losses(tmp_path)) == list(range(1, 13))


def test_sigterm_in_an_evaluation_ends_it_saves_and_stops(tmp_path):
    """Its workers, and the idle ones of the training, get the signal too; none may die of it."""
    config = tiny_project.make(tmp_path, clips=40, workers=1)
    evaluates = (
        f"data.dev={tmp_path / 'train.csv'}",
        "training.eval_strategy=steps",
        "training.eval_steps=2",
        "training.save_steps=2",
        "evaluation.batch_seconds=5",
        "audio.max_length_seconds=4.7",
        "evaluation.max_new_tokens=60",
    )
    printed = run_until(tmp_path, config, 2, *evaluates, number=signal.SIGTERM, group=True)
    assert "saving after this step" in printed and "saved in" in printed, printed
    assert max(tiny_project.losses(tmp_path)) == 2
    assert [row["step"] for row in tiny_project.history(tmp_path) if "eval_loss" in row] == [2]
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_two_processes_stop_together_when_one_is_told(tmp_path):
    config = tiny_project.make(tmp_path, clips=8)
    process = subprocess.Popen(
        tiny_project.command(config, "training.max_steps=4000", "training.save_steps=4000", ranks=2),
        env=tiny_project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while max(tiny_project.losses(tmp_path), default=0) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        ranks = [
            child
            for child in psutil.Process(process.pid).children()
            if "train.py" in " ".join(child.cmdline())
        ]
        assert len(ranks) == 2
        ranks[1].send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=120)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "saved in" in printed, printed
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1


def test_two_processes_give_the_losses_of_one_with_an_uneven_last_batch(tmp_path):
    """Nine clips in batches of two: five batches, so one of the two ranks runs dry at the end of an epoch."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    alone = tiny_project.train(tiny_project.make(one, dropout=0.0), "training.gradient_accumulation_steps=2")
    assert alone.returncode == 0, alone.stderr
    spread = tiny_project.train(tiny_project.make(two, dropout=0.0), ranks=2)
    assert spread.returncode == 0, spread.stderr
    assert tiny_project.losses(two).keys() == tiny_project.losses(one).keys()
    for step, loss in tiny_project.losses(one).items():
        assert tiny_project.losses(two)[step] == pytest.approx(loss, rel=2e-5), step


def test_two_processes_unfreeze_the_encoder_together(tmp_path):
    """Frozen parameters reach no gradient bucket until they unfreeze; then both ranks must average them."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    unfreezes = (
        "training.freeze_encoder_epochs=1",
        "training.gradient_checkpointing=true",
        "training.num_train_epochs=3",
        "training.max_steps=-1",
    )
    alone = tiny_project.train(
        tiny_project.make(one, dropout=0.0, clips=8), *unfreezes, "training.gradient_accumulation_steps=2"
    )
    assert alone.returncode == 0, alone.stderr
    spread = tiny_project.train(tiny_project.make(two, dropout=0.0, clips=8), *unfreezes, ranks=2)
    assert spread.returncode == 0, spread.stderr
    assert "unfreeze after 1 epochs" in spread.stdout
    assert tiny_project.losses(two) == pytest.approx(tiny_project.losses(one), rel=2e-5)


def test_workers_run_under_spawn_and_change_nothing(tmp_path):
    plain, spawned = tmp_path / "plain", tmp_path / "spawned"
    for folder in (plain, spawned):
        folder.mkdir()
    first = tiny_project.train(tiny_project.make(plain), "training.max_steps=3")
    assert first.returncode == 0, first.stderr
    second = tiny_project.train(
        tiny_project.make(spawned, workers=1),
        "training.max_steps=3",
        "dataloader.multiprocessing_context=spawn",
    )
    assert second.returncode == 0, second.stderr
    assert tiny_project.losses(spawned) == tiny_project.losses(plain)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    config = tiny_project.make(tmp_path)
    assert tiny_project.train(config, "training.max_steps=1").returncode == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = tiny_project.train(config, "training.max_steps=1")
    assert again.returncode == 2
    assert "--resume" in again.stderr and "--fresh" in again.stderr
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
