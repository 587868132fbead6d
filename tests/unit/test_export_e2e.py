"""A speech encoder with an mBART decoder as ONNX graphs: the same tokens for both tasks, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import e2e_tiny
import pytest
import torch
from export_assets import utterances
from test_export import BLOCKED, clips

from training.api.exporting import export_model
from training.cli import main
from training.runtime.folder import PASSED
from training.transcription.transcriber import Transcriber

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Path:
    """Random weights, large enough that what is written depends on the sound and on the task."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = e2e_tiny.tiny(max_label_tokens=256)
        for name, weight in made.model.named_parameters():
            if name.startswith(("decoder.", "enc_to_dec_proj")) and weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.4)
    made.save(folder, made.model)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, model: Path, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    done = export_model(model, folder, manifest=data)
    assert done.verdict == PASSED, done.findings
    return folder


def test_both_tasks_are_compared(exported: Path) -> None:
    tasks = json.loads((exported / "parity.json").read_text())["check"]["tasks"]
    assert {task: found["identical"] for task, found in tasks.items()} == {"transcribe": 6, "translate": 6}


def test_an_exported_folder_transcribes_as_the_original(model: Path, exported: Path, data: Path) -> None:
    sides = [
        [one.as_dict() for one in Transcriber(folder).transcribe(clips(data))] for folder in (model, exported)
    ]
    assert sides[0] == sides[1]
    texts = {str(one["segments"]) for one in sides[0]}
    assert len(texts) > 3


def test_the_language_of_a_task_is_that_of_its_text(exported: Path) -> None:
    description = json.loads((exported / "polyvox.json").read_text())["description"]
    known = description["task_prompts"]["languages"]
    assert known["vi"] == known["vi_VN"] != known["en"] == known["en_XX"]


def test_polyvox_transcribes_without_torch_and_transformers(exported: Path, data: Path) -> None:
    command = [str(clips(data)[0]), "--model", str(exported), "--format", "srt", "--task", "translate"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "transcribe", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n00:00:00,000 --> ")


def test_the_folder_runs_with_its_engine_alone(model: Path, exported: Path, data: Path) -> None:
    clip = clips(data)[1]
    code = f"import sys; sys.modules['training'] = sys.modules['torch'] = None; sys.argv[1:] = ['{clip}']; import runpy; runpy.run_path('{exported / 'run.py'}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [segment for one in Transcriber(model).transcribe([clip]) for segment in one.segments]
    lines = dict(line.split("\t") for line in done.stdout.splitlines())
    # Random weights never end a text, and run.py has no bound but that of the positions.
    assert lines["transcribe"].startswith(" ".join(segment.texts["transcribe"] for segment in said))


@pytest.mark.parametrize("format_", ["ctranslate2", "ggml", "nemo"])
def test_other_formats_are_refused_in_one_line(
    format_: str, model: Path, tmp_path: Path, capsys: Any
) -> None:
    assert (
        main(["export", "--model", str(model), "--format", format_, "--output", str(tmp_path / "out")]) == 2
    )
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith(f"error: --format {format_}")
