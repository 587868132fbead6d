"""Folders of runs: what is refused before any work, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.base.errors import UserError
from training.config.load import config_from, save_resolved
from training.decoding.loading import load_trained
from training.engine.folder import OF_VALUE, check_folder, check_model, check_origin, vain_start_removed


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", resume=None, fresh=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty", resume=None, fresh=False)
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_that_can_be_made_leaves_those_above_it_unmade_too(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b" / "new", resume=None, fresh=False)
    assert list(tmp_path.iterdir()) == []


def fail_in(folder: Path, *written: str, claimed: bool = True) -> None:
    """A start that writes these files and its own ``config.yaml``, and fails."""
    with (
        pytest.raises(RuntimeError),
        vain_start_removed(folder, [folder / "config.yaml", folder / "logs"], of_value=OF_VALUE) as start,
    ):
        start.claimed = claimed
        for name in ("config.yaml", "logs/events", *written):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
        raise RuntimeError


def test_a_start_that_fails_takes_its_leavings_with_it(tmp_path: Path) -> None:
    fail_in(tmp_path / "outputs" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoint-1/model.safetensors", "metrics/run_metrics.json"])
def test_checkpoints_and_logged_steps_are_never_removed(tmp_path: Path, name: str) -> None:
    fail_in(tmp_path / "run", name)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "logs", name.split("/")[0]}


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    fail_in(tmp_path / "run", "notes.txt")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_an_earlier_run_stays_while_the_folder_is_not_claimed(tmp_path: Path) -> None:
    fail_in(tmp_path / "run", claimed=False)
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_file_where_the_folder_should_be_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"output\.dir: .*file.* cannot be written to"):
        check_folder(tmp_path / "file" / "run", resume=None, fresh=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_somebody_else_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds files"):
        check_folder(tmp_path, resume=None, fresh=False)
    with pytest.raises(UserError, match="was not written by a run"):
        check_folder(tmp_path, resume=None, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_working_directory_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--checkpoint_dir ''`` in a folder whose ``config.yaml`` is the user's own, say."""
    (tmp_path / "config.yaml").write_text("model: {type: whisper}")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for folder in (Path(), Path("..")):
        (folder / "config.yaml").touch()
        with pytest.raises(UserError, match="holds the working directory and is left alone"):
            check_folder(folder, resume=None, fresh=True)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "damaged, not JSON"), ("[]", "no model's configuration")]
)
def test_a_damaged_model_folder_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=rf"config\.json: {message}"):
        load_trained(tmp_path)


def test_a_key_that_is_younger_than_the_run_counts_as_its_default(tmp_path: Path) -> None:
    model = {"type": "ctc", "encoder": "transformer", "feature_norm": "peak"}
    old = config_from({"model": model})
    path = save_resolved(old, tmp_path)
    lines = [line for line in path.read_text(encoding="utf8").splitlines() if "edge_silence" not in line]
    path.write_text("\n".join(lines), encoding="utf8")
    check_model(old, tmp_path)
    with pytest.raises(UserError, match=r"model\.edge_silence: not what .* says, and --resume goes on"):
        check_model(config_from({"model": {**model, "edge_silence": 0.2}}), tmp_path)


@pytest.mark.parametrize("inside", ["", "checkpoint-3"])
def test_the_model_that_a_run_begins_with_is_never_removed(tmp_path: Path, inside: str) -> None:
    """Phase 2 with the folder of phase 1 as its own, say."""
    run = tmp_path / "run"
    model = {"type": "voxlm", "name": str(run / inside), "phase": 2}
    with pytest.raises(UserError, match=r"--fresh: .*run holds model\.name .* and is left alone"):
        check_origin(config_from({"model": model, "output": {"dir": str(run)}}))
    check_origin(config_from({"model": model, "output": {"dir": str(tmp_path / "run_phase2")}}))
