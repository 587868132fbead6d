"""CTC runs by their literal commands: two processes, best, last and periodic checkpoints, short options."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_project

pytestmark = pytest.mark.recipe

MODEL = """
model: {{type: ctc, encoder: {encoder}, subsampling: 2, subsampling_channels: 8, d_model: 16, num_encoder_layers: 2,
        num_heads: 2, d_ff: 32, n_mels: 16, dropout: 0.0}}
"""


def make(folder: Path, encoder: str) -> Path:
    """The tiny project, with a CTC model in the place of its Whisper."""
    folder.mkdir()
    config = tiny_project.make(folder, dropout=0.0)
    rest = config.read_text(encoding="utf8").split("\ndata:", 1)[1]
    config.write_text(f"{MODEL.format(encoder=encoder)}\ndata:{rest}", encoding="utf8")
    return config


@pytest.mark.parametrize("encoder", ["fastconformer", "transformer"])
def test_two_processes_give_the_losses_of_one_with_twice_the_batch(tmp_path, encoder):
    """Nine clips: batches of four in one process, of two in each of two; the last batches are not full."""
    changes = (
        "augmentation.after_epochs=1",
        "augmentation.volume.prob=0.5",
        "augmentation.spec.prob=0.5",
        "training.max_steps=8",
    )
    one = make(tmp_path / "one", encoder)
    alone = tiny_project.train(one, "training.gradient_accumulation_steps=2", *changes)
    assert alone.returncode == 0, alone.stderr
    two = make(tmp_path / "two", encoder)
    spread = tiny_project.train(two, *changes, ranks=2)
    assert spread.returncode == 0, spread.stderr
    wanted, found = tiny_project.losses(tmp_path / "one"), tiny_project.losses(tmp_path / "two")
    assert len(found) == 8 and found.keys() == wanted.keys()
    for step, loss in wanted.items():
        assert found[step] == pytest.approx(loss, rel=2e-5), step


def test_twice_the_batch_in_one_step_is_the_same_again(tmp_path):
    """Not accumulated: four clips in one batch, where two processes take two each. Eight clips of like length."""
    losses = []
    for name, arguments, ranks in (("wide", ("--batch_size", "4"), 1), ("two", ("--batch_size", "2"), 2)):
        config = make(tmp_path / name, "fastconformer")
        train = tmp_path / name / "train.csv"
        lines = train.read_text(encoding="utf8").splitlines()
        train.write_text("\n".join(lines[:5]) + "\n", encoding="utf8")
        done = tiny_project.train(config, *arguments, "training.max_steps=4", ranks=ranks)
        assert done.returncode == 0, done.stderr
        losses.append(tiny_project.losses(tmp_path / name))
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


def test_a_run_resumed_before_augmentation_begins_goes_on_as_the_whole_one(tmp_path):
    """Three steps an epoch, changes from the second one on; the run is taken up again at step 2."""
    folder = tmp_path / "project"
    changes = (
        "--batch_size",
        "3",
        "augmentation.after_epochs=1",
        "augmentation.volume={prob: 1, low_db: -20, high_db: -10}",
        "training.max_steps=8",
        "training.save_steps=2",
        "training.save_total_limit=null",
    )
    config = make(folder, "transformer")
    done = tiny_project.train(config, *changes)
    assert done.returncode == 0, done.stderr
    assert "epoch 1: the clips are harder from here on (augmentation.after_epochs)" in done.stdout
    whole = tiny_project.losses(folder)
    for step in (4, 6, 8):
        shutil.rmtree(folder / "run" / f"checkpoint-{step}", ignore_errors=True)
    done = tiny_project.train(config, *changes, "--resume")
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("step"))
    assert first.split()[:2] == ["step", "3/8"] and tiny_project.losses(folder) == whole


def test_short_options_checkpoints_and_fine_tuning(tmp_path):
    """The guide's command: its options, best and last and periodic checkpoints, then ``--pretrained_model``."""
    config = make(tmp_path / "base", "transformer")
    arguments = ["--num_epochs", "4", "--batch_size", "3", "--learning_rate", "0.002", "--d_model", "24"]
    folder = tmp_path / "checkpoints" / "experiment1"
    scored = [
        "training.cpu_threads=1",
        "training.max_steps=-1",
        "training.eval_strategy=epoch",
        "training.save_strategy=epoch",
    ]
    done = tiny_project.train(
        config,
        *arguments,
        "--checkpoint_dir",
        str(folder),
        *scored,
        "training.save_total_limit=null",
        "training.lr_scheduler_type=onecycle",
    )
    assert done.returncode == 0, done.stderr
    saved = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert len(saved) == 4, "one for each epoch"
    results = json.loads((folder / "train_results.json").read_text())
    assert Path(results["best_checkpoint"]).name in saved
    assert results["epochs"] == 4
    assert results["cpu_threads"] == 1
    assert json.loads((folder / "config.json").read_text())["d_model"] == 24

    other = tiny_project.train(config, "--checkpoint_dir", str(folder), "--d_model", "32", "--resume")
    assert other.returncode == 2, other.stderr
    assert "model.d_model: not what" in other.stderr
    longer = ["training.num_train_epochs=5", "training.save_total_limit=null", *scored]
    cycle = [*arguments, "--checkpoint_dir", str(folder), "training.lr_scheduler_type=onecycle"]
    done = tiny_project.train(config, *cycle, *longer, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "train_results.json").read_text())["epochs"] == 5

    script = str(tiny_project.ROOT / "training" / "scripts" / "run_evaluation.py")
    for split in ("test", "dev"):
        scored = [sys.executable, script, "--model_dir", str(folder), "--split", split]
        subprocess.run([*scored, "--output", str(tmp_path / "results")], check=True, timeout=200)
    reports = [
        path.name.removesuffix("_metrics.json") for path in (tmp_path / "results").glob("*_metrics.json")
    ]
    assert len(reports) == 2 and f"{min(reports)}_dev" == max(reports), (
        "one split's scores do not replace another's"
    )

    tuned = tmp_path / "tuned"
    arguments = [
        "--pretrained_model",
        str(folder),
        "--learning_rate",
        "0.00001",
        "--checkpoint_dir",
        str(tuned),
    ]
    done = tiny_project.train(
        config, *arguments, "training.max_steps=1", "--d_model", "24", "model.languages=[]"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"the output layer is made anew, \d+ of its rows carried over", done.stdout)
    wrong = tiny_project.train(config, *arguments, "--fresh", "--d_model", "16")
    assert wrong.returncode == 2
    assert "model.d_model: 16, but" in wrong.stderr
