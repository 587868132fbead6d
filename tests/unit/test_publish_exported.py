"""An exported folder is published as it was compared, with the comparison; one that did not pass is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_hub
import pytest
from export_assets import saved, utterances
from fake_hub import TOKEN, FakeHub

from training import cli
from training.api.exporting import export_model
from training.decoding.calibrated import Calibration, weights_of
from training.runtime.folder import read_exported

pytest.importorskip("ctranslate2")

NAME = "clinic/whisper-ct2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> dict[str, Path]:
    """An exported folder that passed, and one that nobody compared."""
    folder = tmp_path_factory.mktemp("made")
    data, model = utterances(folder), saved(folder / "model", "whisper")
    (model / "README.md").write_text("# Mine\n\nTuned on speech.\n", encoding="utf8")
    assert export_model(model, folder / "passed", format="ctranslate2", manifest=data).passed
    (model / "README.md").unlink()
    export_model(model, folder / "unchecked", format="ctranslate2", check=False)
    return {name: folder / name for name in ("passed", "unchecked")}


@pytest.fixture
def folder(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["passed"], tmp_path)


def copied(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "out"
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub import constants

    with fake_hub.running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def publish(folder: Path, *options: str) -> int:
    return cli.main(["publish", "--model_dir", str(folder), "--repo_id", NAME, *options])


def change(path: Path, edit: Any) -> None:
    content = json.loads(path.read_text(encoding="utf8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf8")


def test_what_arrives_is_a_folder_that_can_be_used(folder: Path, hub: FakeHub, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine", encoding="utf8")
    assert publish(folder) == 0
    files = hub.repositories[NAME].files
    assert files["model.bin"] == (folder / "model.bin").read_bytes() and "notes.txt" not in files
    card = files["README.md"].decode()
    assert card.startswith("# Mine\n\nTuned on speech.\n") and card.count("## This export") == 1
    assert "| transcribe | passed | 6 of 6 |" in card and "faster-whisper: no" in card
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, content in files.items():
        (arrived / name).write_bytes(content)
    assert read_exported(arrived).checked == "passed"
    assert publish(arrived) == 0  # its card has the section already, and keeps one
    assert hub.repositories[NAME].files["README.md"].decode() == card


def test_texts_of_the_test_split_stay_here(folder: Path, hub: FakeHub) -> None:
    different = {
        "id": "u1",
        "first_difference": 3,
        "logit_gap": 1e-4,
        "original": "secret",
        "exported": "words",
    }
    change(
        folder / "parity.json",
        lambda found: found["check"]["tasks"]["transcribe"]["different"].append(different),
    )
    change(folder / "polyvox.json", lambda found: found["files"].pop("parity.json"))
    assert publish(folder) == 2  # the comparison must be the recorded one
    from training.base.files import sha256

    digest = sha256(folder / "parity.json")
    change(folder / "polyvox.json", lambda found: found["files"].update({"parity.json": digest}))
    assert publish(folder) == 0
    parity = json.loads(hub.repositories[NAME].files["parity.json"])
    assert parity["check"]["tasks"]["transcribe"]["different"] == [{"first_difference": 3, "logit_gap": 1e-4}]


def test_a_folder_that_nobody_compared_says_so(
    made: dict[str, Path], hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(made["unchecked"], "--dry_run", "--licence", "apache-2.0") == 0
    output = capsys.readouterr()
    assert "nobody has compared" in output.err and "Nobody has compared it with the original." in output.out
    assert "license: apache-2.0" in output.out and "library_name: ctranslate2" in output.out


@pytest.mark.parametrize("verdict", ["failed", "undecided"])
def test_what_did_not_pass_is_refused(
    verdict: str, folder: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.base.files import sha256

    change(folder / "parity.json", lambda found: found["check"].update(verdict=verdict))
    digest = sha256(folder / "parity.json")
    change(folder / "polyvox.json", lambda found: found["files"].update({"parity.json": digest}))
    assert publish(folder) == 2 and "is not that of polyvox.json" in capsys.readouterr().err
    change(folder / "polyvox.json", lambda found: found["check"].update(verdict=verdict))
    assert publish(folder) == 2
    assert f"did not pass ({verdict}" in capsys.readouterr().err and hub.requests == []


def test_a_changed_file_and_a_foreign_calibration_are_refused(
    folder: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    Calibration(method="platt", weights="others").write(folder)
    assert publish(folder) == 2 and "fitted with other weights" in capsys.readouterr().err
    Calibration(method="platt", weights=weights_of(folder)).write(folder)
    assert publish(folder) == 0 and "calibration.json" in hub.repositories[NAME].files
    assert "calibrated on this export" in hub.repositories[NAME].files["README.md"].decode()
    (folder / "run.py").write_text("print('mine')\n", encoding="utf8")
    assert publish(folder) == 2 and "run.py: is not the file that was exported" in capsys.readouterr().err
    assert publish(folder, "--results", str(folder)) == 2
