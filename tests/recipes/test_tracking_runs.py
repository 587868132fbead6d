"""A training with TensorBoard and with W&B, read back from what they wrote; and the finished run, made ready to publish."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_project
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import fake_hub

pytestmark = pytest.mark.recipe

PARAMETERS = {"parameters/total", "parameters/trainable"}
SHORT = ("training.max_steps=2", "training.save_strategy=no", "training.freeze=[encoder]")


def trained(folder: Path, reports: str, **variables: str) -> Path:
    """The tiny run with this reporter; its folder."""
    done = subprocess.run(
        tiny_project.command(tiny_project.make(folder), f"training.report_to={reports}", *SHORT),
        env={**tiny_project.environment(), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("tensorboard"), "tensorboard")


def test_tensorboard_has_curves_configuration_and_counts(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    assert {"train/loss", "train/audio_hours_per_second", *PARAMETERS} <= set(events.Tags()["scalars"])
    total, learning = (events.Scalars(name)[0].value for name in sorted(PARAMETERS))
    assert total == results(run)["parameters"] and learning == results(run)["trainable_parameters"] < total
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    written = "".join(
        f"    {line}" for line in (run / "config.yaml").read_text("utf8").splitlines(keepends=True)
    )
    assert text == written.rstrip("\n")


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "train_results.json").read_text("utf8"))


def test_the_results_say_how_much_was_trained_on(run: Path) -> None:
    data = results(run)["data"]
    assert data["train"]["utterances"] == 9 and data["train"]["hours"] == pytest.approx(9.0 / 3600)
    assert data["train"]["domains"] == {} and "dev" not in data


def test_the_run_can_be_published_as_it_is(run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "publish",
        "--model_dir",
        "run",
        "--repo_id",
        "me/tiny",
        "--dry_run",
    ]
    done = subprocess.run(
        command, env=tiny_project.environment(), capture_output=True, text=True, timeout=300, cwd=run.parent
    )
    assert done.returncode == 0, done.stderr
    head, _, card = done.stdout.partition("README.md:\n\n")
    assert "  model.safetensors " in head and "logs/: TensorBoard" in head and str(run.parent) not in card
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["vi"]
    assert "| train | `train.csv` | 9 | 0.00 |  |" in card and "random weights (from scratch)" in card


def test_a_run_is_scored_and_published_privately_when_it_is_finished(tmp_path: Path) -> None:
    config = tiny_project.make(tmp_path)
    with fake_hub.running() as hub:
        environment = {
            name: value for name, value in tiny_project.environment().items() if "OFFLINE" not in name
        }
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        command = [*tiny_project.command(config, *SHORT), "--login-hf"]
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300, "cwd": tmp_path}
        refused = subprocess.run(command, env={**environment, "HF_TOKEN": "hf_wrong"}, **settings)
        assert refused.returncode == 2 and refused.stderr.startswith("error: --login_hf: "), refused.stderr
        assert not (tmp_path / "run").exists()  # nothing was trained for nothing
        done = subprocess.run(command, env={**environment, "HF_TOKEN": fake_hub.TOKEN}, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        (name,) = hub.repositories
        published = hub.repositories[name]
    assert name == "clinic/run" and published.private
    assert {"model.safetensors", "config.yaml", "README.md"} <= set(published.files)
    assert "WER" in published.files["README.md"].decode()
    assert fake_hub.TOKEN not in done.stdout + done.stderr


BLOCK, HEADER = 32768, 7
"""Of the log format of LevelDB, which W&B's files are in: (checksum, size, kind) before each piece of a record."""


def records(folder: Path) -> list[Any]:
    """Everything in the file of the only offline run."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, position, held, found = path.read_bytes(), HEADER, b"", []
    while position < len(data):
        if (left := BLOCK - position % BLOCK) < HEADER:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER + size
        held += data[position - size : position]
        if kind in (1, 4):  # whole, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(held))
            held = b""
    return found


def test_wandb_offline_has_curves_configuration_and_counts(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    run = trained(tmp_path, "wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    found = records(tmp_path)
    config = {item.key: item.value_json for record in found for item in record.config.update}
    assert json.loads(config["polyvox"]) == yaml.safe_load((run / "config.yaml").read_text("utf8"))
    assert json.loads(config["parameters/total"]) == results(run)["parameters"]
    assert json.loads(config["parameters/trainable"]) == results(run)["trainable_parameters"]
    curves = {"/".join(item.nested_key) or item.key for record in found for item in record.history.item}
    assert {"train/loss", "train/audio_hours_per_second"} <= curves
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


def test_wandb_without_a_key_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    done = subprocess.run(
        tiny_project.command(tiny_project.make(tmp_path), "training.report_to=wandb", *SHORT),
        env={**without_keys(), "HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "training.report_to: wandb: " in done.stderr and "WANDB_MODE=offline" in done.stderr
    assert "Traceback" not in done.stderr


def without_keys() -> dict[str, str]:
    return {
        name: value for name, value in tiny_project.environment().items() if not name.startswith("WANDB_")
    }
