"""The architecture of docs/adding-an-architecture.md works as it is printed, through the commands that users type."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from training.base.errors import UserError
from training.models import lookup
from training.models.lookup import available, load

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "adding-an-architecture.md"
TEXTS = (
    "Xin chào các bạn",
    "Chúng ta có meeting lúc ba giờ",
    "Em gửi file cho anh rồi",
    "Deadline là thứ hai",
)
COMMANDS = """
import sys
from training.cli import run
overrides = ["data.train=train.csv", "data.dev=dev.csv", "data.test=dev.csv", "output.dir=run"]
train = ["--config", "moonshine.yaml", *overrides]
assert run("train", [*train, "--dry_run"]) == 0
assert run("train", train) == 0
assert run("evaluate", ["--model_dir", "run", "--output", "results"]) == 0
assert run("transcribe", ["clip0.wav", "--model", "run", "--task", "translate", "--format", "json"]) == 0
"""


def block(language: str) -> str:
    """The document's only fenced block of this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a module of its own, four clips of noise, and what the commands printed."""
    folder = tmp_path_factory.mktemp("adding")
    (folder / "polyvox_moonshine.py").write_text(block("python"), encoding="utf-8")
    (folder / "moonshine.yaml").write_text(block("yaml"), encoding="utf-8")
    write_clips(folder)
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def write_clips(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i, text in enumerate(TEXTS):
        seconds = 0.8 + 0.1 * i
        soundfile.write(folder / f"clip{i}.wav", 0.1 * rng.standard_normal(int(16000 * seconds)), 16000)
        rows.append({"id": f"u{i}", "audio_path": f"clip{i}.wav", "duration": seconds, "transcript": text})
    for name, part in (("train", rows), ("dev", rows[:2])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "translation"])
            writer.writeheader()
            writer.writerows({**row, "translation": row["transcript"].lower()} for row in part)


def test_the_dry_run_plans_it(project: tuple[Path, str]) -> None:
    assert re.search(r"verdict +fits: ", project[1])
    assert re.search(r"the longest clip|long clips +loss \d", project[1])


def test_two_steps_change_encoder_and_decoder(project: tuple[Path, str]) -> None:
    folder = project[0] / "run"
    assert json.loads((folder / "train_results.json").read_text("utf-8"))["steps"] == 2
    first, second = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2))
    for name in ("model.encoder.conv1.weight", "model.decoder.layers.0.encoder_attn.q_proj.weight"):
        assert not first[name].equal(second[name])


def test_its_folder_is_scored_and_transcribes(project: tuple[Path, str]) -> None:
    folder, printed = project
    report = json.loads((folder / "results" / "run_metrics.json").read_text("utf-8"))
    assert report["meta"]["model_type"] == "polyvox_moonshine:Moonshine"
    assert report["rows"] == {"transcribe": 2, "translate": 2}
    line = json.loads(printed.strip().splitlines()[-1])
    assert line["audio"] == "clip0.wav" and "translate" in line and "transcribe" not in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("polyvox_moonshine:Moonlight", "cannot be imported"),
        ("no_such_package:Model", "cannot be imported"),
        ("collections:OrderedDict", "is no subclass of training.Architecture"),
        ("moonshine", "unknown architecture 'moonshine'; choose one of ctc,"),
    ],
)
def test_a_name_that_is_no_architecture_is_the_users_mistake(
    project: tuple[Path, str], name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project[0]))
    with pytest.raises(UserError, match=re.escape(message)):
        load(name)


def test_an_installed_package_is_found_by_its_entry_point(
    project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("moonshine", "polyvox_moonshine:Moonshine", lookup.GROUP)
    monkeypatch.syspath_prepend(str(project[0]))
    monkeypatch.setattr(lookup, "entry_points", lambda group: [point] if group == lookup.GROUP else [])
    assert "moonshine" in available()
    assert load("moonshine").__name__ == "Moonshine"
