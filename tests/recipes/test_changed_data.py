"""``--resume`` when the data are not those that the run was trained on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
import tiny_project

from training.cli import train as command

pytestmark = [pytest.mark.recipe]


def edit(path: Path, **changes: dict[str, str] | None) -> None:
    """Change cells of rows by id; None takes the row out."""
    with path.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [
        {**row, **(changes.get(row["id"]) or {})} for row in rows if changes.get(row["id"], {}) is not None
    ]
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps; the variables that a run sets do not stay."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    config = tiny_project.make(tmp_path)
    assert run(config, "training.max_steps=2") == 0
    return config


def run(config: Path, *arguments: str) -> int:
    return command.main(["--config", str(config), *arguments])


def test_changed_rows_are_told_and_have_to_be_accepted(begun: Path) -> None:
    """The literal commands: status 2 and nothing touched, then on with what is there."""
    folder = begun.parent
    edit(folder / "train.csv", u8=None, u1={"transcript": "something else"})
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")}
    refused = tiny_project.train(begun, "training.max_steps=3", "--resume")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "train: 9 utterances then, 8 now: 1 removed (u8); 1 changed (u1: text)" in refused.stderr
    assert "--accept_changed_data" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")} == before
    accepted = tiny_project.train(begun, "training.max_steps=3", "--resume", "--accept_changed_data")
    assert accepted.returncode == 0, accepted.stderr
    assert "goes on from" in accepted.stdout and "1 removed (u8)" in accepted.stdout
    results = json.loads((folder / "run" / "train_results.json").read_text(encoding="utf8"))
    counts = {"added": 0, "removed": 1, "changed": 1, "reordered": False}
    assert results["data_changes"] == [{"from_step": 2, "train": counts}]
    assert "u8" not in json.dumps(results["data_changes"])  # it is published


def test_once_accepted_the_new_rows_are_those_of_the_run(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(begun.parent / "train.csv", u8=None)
    assert run(begun, "training.max_steps=3", "--resume", "--accept_changed_data") == 0
    assert run(begun, "training.max_steps=4", "--resume") == 0
    capsys.readouterr()
    older = str(begun.parent / "run" / "checkpoint-2")
    with pytest.raises(ValueError, match=r"checkpoint-2 was trained on:\n  train: 9 utterances then, 8 now"):
        run(begun, "training.max_steps=4", "--resume", older)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "data.columns={transcript: translation, translation: transcript}",
            r"9 changed .*\n  data.columns.transcript: None then, 'transla",
        ),
        ("data.min_seconds=0.85", r"3 removed \(u0, u1, u2\)\n  data.min_seconds: 0.1 then, 0.85 now"),
        ("audio.max_length_seconds=1.3", r"1 removed \(u8\)\n  audio.max_length_seconds: 30.0 then, 1.3 now"),
    ],
)
def test_settings_that_choose_other_rows_are_named(begun: Path, override: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run(begun, "training.max_steps=3", "data.max_dropped_share=1", "--resume", override)


def test_another_sound_of_the_same_name(begun: Path) -> None:
    path = begun.parent / "clip4.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[:-80], rate)
    with pytest.raises(ValueError, match=r"1 changed \(u4: sound\)"):
        run(begun, "training.max_steps=3", "--resume")


def test_the_dev_split_counts_too(begun: Path) -> None:
    evaluated = ("training.eval_strategy=steps", "training.eval_steps=1", "evaluation.max_new_tokens=10")
    assert run(begun, "training.max_steps=2", *evaluated, "--fresh") == 0
    edit(begun.parent / "dev.csv", u1=None)
    with pytest.raises(ValueError, match=r"\n  dev: 2 utterances then, 1 now: 1 removed \(u1\)\n"):
        run(begun, "training.max_steps=3", *evaluated, "--resume")


def test_a_checkpoint_of_before_goes_on_and_says_that_nothing_can_be_checked(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = begun.parent / "run" / "checkpoint-2"
    marker = json.loads((checkpoint / "complete.json").read_text(encoding="utf8"))
    for name in ("rows_train.arrow", "provenance.json"):
        (checkpoint / name).unlink()
        del marker["files"][name]
    (checkpoint / "complete.json").write_text(json.dumps(marker), encoding="utf8")
    edit(begun.parent / "train.csv", u8=None)
    capsys.readouterr()
    assert run(begun, "training.max_steps=3", "--resume") == 0
    assert capsys.readouterr().out.count("whether the data have changed cannot be checked") == 1
    results = json.loads((begun.parent / "run" / "train_results.json").read_text(encoding="utf8"))
    assert results["devices"][0]["name"] == "not recorded"
    assert [one["from_step"] for one in results["devices"]] == [0, 2]


def test_the_option_belongs_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--accept_changed_data belongs to --resume"):
        run(tiny_project.make(tmp_path), "--accept_changed_data")


# What the run was computed on


def test_two_processes_are_recorded(tmp_path: Path) -> None:
    config = tiny_project.make(tmp_path)
    done = tiny_project.train(config, "training.max_steps=1", ranks=2)
    assert done.returncode == 0, done.stderr
    (device,) = json.loads((tmp_path / "run" / "train_results.json").read_text("utf8"))["devices"]
    assert device["name"] and (device["count"], device["processes"], device["precision"]) == (2, 2, "fp32")
    assert run(config, "training.max_steps=2", "training.bf16=true", "--resume") == 0
    devices = json.loads((tmp_path / "run" / "train_results.json").read_text("utf8"))["devices"]
    assert [(one["from_step"], one["count"], one["precision"]) for one in devices] == [
        (0, 2, "fp32"),
        (1, 1, "bf16"),
    ]
