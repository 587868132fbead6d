"""A start that fails leaves nothing behind that the corrected command would stumble over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_project
import torch

from training import cli

pytestmark = [pytest.mark.recipe]
NO_GPU = not torch.cuda.is_available()
STARTS = {
    "no_gpu": (("profile.device=cuda",), "this machine shows no GPU"),
    "no_bf16": (("profile.precision=bf16", "profile.device=auto"), "no GPU that computes in it"),
    "warmup": (
        ("training.lr_scheduler_type=onecycle", "training.warmup_steps=50"),
        "50, but the run has 2 steps",
    ),
    "schedule": (("training.lr_scheduler_type=warmup_stable_decay",), "warmup_stable_decay cannot be made"),
    "data": (("data.train={folder}/none.csv",), "none.csv is not there"),
    "dropped": (("data.min_seconds=1.0",), "data.max_dropped_share"),
    "weights": (("model.name={folder}/none", "model.sizes=null"), "cannot be loaded"),
    "budget": (
        ("training.batch_size=null", "training.max_batch_seconds=0.3"),
        "does not fit",
    ),
    "freeze": (("training.freeze=[no.such.part]",), "matches no parameter"),
    "log": (("output.log_file={folder}/run/logs/all.txt", "data.min_seconds=1.0"), "max_dropped_share"),
    "place": (("output.dir={folder}/train.csv/run",), "cannot be written to"),
    "first_batch": (("data.train={folder}/nan.csv",), "nan.wav"),
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # a run sets it
    made = tiny_project.make(tmp_path)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    (tmp_path / "nan.csv").write_text(
        "id,audio_path,duration,transcript,translation\nx,nan.wav,1.0,a,a\n", encoding="utf8"
    )
    return made


def start(config: Path, *arguments: str) -> int:
    """The command in this process."""
    return cli.main(["train", "--config", str(config), "training.max_steps=2", *arguments])


def wrong_start(folder: Path, name: str) -> tuple[list[str], str]:
    if name in ("no_gpu", "no_bf16") and not NO_GPU:
        pytest.skip("there is a GPU")
    arguments, message = STARTS[name]
    return [one.format(folder=folder) for one in arguments], message


@pytest.mark.parametrize("name", STARTS)
def test_the_corrected_command_starts(config: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    wrong, message = wrong_start(config.parent, name)
    there = set(config.parent.rglob("*"))
    assert start(config, *wrong) == 2
    assert message in capsys.readouterr().err
    assert set(config.parent.rglob("*")) == there
    assert start(config) == 0


def test_one_wrong_command_after_the_other_and_then_the_right_one(config: Path) -> None:
    """The literal commands."""
    for name in ("schedule", "log", "first_batch"):
        wrong, message = wrong_start(config.parent, name)
        failed = tiny_project.train(config, "training.max_steps=2", *wrong)
        assert failed.returncode == 2 and "Traceback" not in failed.stderr, failed.stderr
        assert message in failed.stderr and not (config.parent / "run").exists()
    corrected = tiny_project.train(config, "training.max_steps=2")
    assert corrected.returncode == 0, corrected.stderr


def test_a_log_inside_the_run_has_every_line_and_does_not_stop_its_own_run(config: Path) -> None:
    log = config.parent / "run" / "train.log"
    given = (f"output.log_file={log}", "data.min_seconds=0.65", "data.max_dropped_share=0.5")
    assert start(config, *given) == 0
    text = log.read_text(encoding="utf8")
    first, rest = text.split("\n", 1)
    assert first.startswith("model.language: vi, because") and rest.startswith(
        "train: 1 of 9 utterances cannot be used"
    )
    assert "\nstep " in rest


def test_fresh_removes_no_run_before_the_new_one_can_start(config: Path) -> None:
    assert start(config) == 0
    model = (config.parent / "run" / "model.safetensors").read_bytes()
    assert start(config, "--fresh", "training.lr_scheduler_type=warmup_stable_decay") == 2
    assert (config.parent / "run" / "model.safetensors").read_bytes() == model


def test_a_warm_up_that_the_run_does_not_get_out_of_is_told(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(config, "training.warmup_steps=8") == 0
    assert "the run ends in the warm-up, and the learning rate reaches 25%" in capsys.readouterr().out
