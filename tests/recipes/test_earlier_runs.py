"""Run folders that version 0.1 made (`tests/fixtures/runs_0_1`) still load."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny_project

pytestmark = pytest.mark.recipe

RUNS = tiny_project.ROOT / "tests" / "fixtures" / "runs_0_1"
NAMES = ("ctc", "whisper")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy, so that a command that writes into a run's folder cannot change the fixture."""
    return Path(shutil.copytree(RUNS, tmp_path / "runs"))


def polyvox(runs: Path, *arguments: object) -> str:
    """What the command prints, run where the folders are: their configurations name files from there."""
    done: subprocess.CompletedProcess[str] = tiny_project.polyvox(*arguments, cwd=runs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(name: str) -> dict[str, Any]:
    """What version 0.1 gave for a run."""
    found: dict[str, Any] = json.loads((RUNS / f"expected_{name}.json").read_text(encoding="utf8"))
    return found


def clips(runs: Path) -> list[str]:
    with (runs / "test.csv").open(encoding="utf8", newline="") as file:
        return [row["audio_path"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_run_transcribes_as_it_did(runs: Path, name: str) -> None:
    said = polyvox(runs, "transcribe", "--model", name, *clips(runs), "--format", "json")
    found = [json.loads(line) for line in said.splitlines()]
    wanted = expected(name)["transcribe"]
    assert [row["text"] for row in found] == [row["text"] for row in wanted]
    assert len(found) == len(wanted) == 2 and all(row["text"] for row in wanted)
    if not words(
        wanted
    ):  # version 0.1 told no times of a Whisper's words; where they are told now they are those of the text
        spoken = [(row["text"].split(), [word["word"] for word in words([row])]) for row in found]
        assert all(placed in ([], text) for text, placed in spoken)
        return
    assert [word["word"] for word in words(found)] == [word["word"] for word in words(wanted)]
    # What another machine's last digits may change: a frame, and the fourth digit.
    for key, room in (("start", 0.041), ("end", 0.041), ("confidence", 1e-3)):
        before = [word[key] for word in words(wanted)]
        assert [word[key] for word in words(found)] == pytest.approx(before, abs=room)


def words(rows: list[Any]) -> list[Any]:
    """All words of some transcripts, with times and confidence."""
    return [word for row in rows for segment in row["segments"] for word in segment["words"]]


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_run_is_scored_as_it_was(runs: Path, name: str, tmp_path: Path) -> None:
    polyvox(runs, "evaluate", "--model_dir", name, "--output", tmp_path / "results")
    wanted = expected(name)["evaluate"]
    with (tmp_path / "results" / f"{name}_predictions.csv").open(encoding="utf8", newline="") as file:
        assert {row["id"]: row["hypothesis"] for row in csv.DictReader(file)} == wanted["hypotheses"]
    metrics = json.loads((tmp_path / "results" / f"{name}_metrics.json").read_text(encoding="utf8"))
    assert metrics["scores"] == wanted["scores"]


@pytest.mark.parametrize("name", NAMES)
def test_the_config_yaml_of_an_earlier_run_is_understood(runs: Path, name: str) -> None:
    data = ("data.train=test.csv", "data.dev=test.csv", "output.dir=new")
    said = polyvox(runs, "train", "--config", runs / name / "config.yaml", "--dry_run", *data)
    assert "result         valid" in said
    assert f"model          {name}, " in said
