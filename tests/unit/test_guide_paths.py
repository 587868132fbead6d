"""Paths as the guides write them are taken from where they lie here, and a line says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training.cli.guide_paths import in_their_place

ROOT = Path(__file__).parents[2]


def test_paths_of_the_guides_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "training/data", "data/splits"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs/dev_whisper.yaml").write_text("")
    (tmp_path / "data/splits/test.csv").write_text("")
    words = [
        "--config",
        "training/configs/dev_whisper.yaml",
        "--model=./training/outputs/run",
        "training.seed=1",
    ]
    assert in_their_place(words) == [
        "--config",
        "configs/dev_whisper.yaml",
        "--model=outputs/run",
        "training.seed=1",
    ]
    assert capsys.readouterr().err.splitlines() == [
        "training/configs/dev_whisper.yaml: lies at configs/dev_whisper.yaml here",
        "./training/outputs/run: lies at outputs/run here",
    ]
    # training/data is a folder here too: only what is not there, and is in data/, is meant.
    assert in_their_place(["training/data/splits/test.csv"]) == ["data/splits/test.csv"]
    assert in_their_place(["training/data/nothing.py"]) == ["training/data/nothing.py"]


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training/configs").mkdir(parents=True)
    (tmp_path / "training/configs/mine.yaml").write_text("")
    assert in_their_place(["training/configs/mine.yaml"]) == ["training/configs/mine.yaml"]


def test_a_command_takes_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from training.cli import train

    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        train.main(["--config", "training/configs/demo_ctc.yaml", "--no_such_option"])
    assert "unknown option --no_such_option" in capsys.readouterr().err
    found = train.parser().parse_known_args(["--config", "training/configs/demo_ctc.yaml"])[0]
    assert found.config == Path("configs/demo_ctc.yaml")


@pytest.mark.parametrize("name", ["run_dev", "run_prod"])
def test_the_scripts_of_the_guides_call_ours(name: str) -> None:
    done = subprocess.run(
        [ROOT / f"training/{name}.sh", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith(f"usage: ./{name}.sh")
    assert done.stderr == f"training/{name}.sh: lies at ./{name}.sh here\n"
