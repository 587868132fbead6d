"""A CTC model in NeMo's layout: onnx-asr says the same, and what sherpa-onnx makes of it is measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from ctc_assets import saved, tiny
from export_assets import utterances
from test_export import clips

from training.api.exporting import export_model
from training.runtime.folder import PASSED
from training.transcription.transcriber import Transcriber

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, data: Path) -> Path:
    torch.manual_seed(0)
    made = tiny("fastconformer", n_mels=80)
    torch.nn.init.normal_(made.model.ctc_head.weight, std=1.0)
    work = tmp_path_factory.mktemp("model")
    done = export_model(saved(made, work / "model"), work / "out", format="nemo", manifest=data)
    assert done.verdict == PASSED, done.findings
    return done.folder


def test_the_folder_says_what_sherpa_onnx_makes_of_it(folder: Path) -> None:
    told = json.loads((folder / "polyvox.json").read_text(encoding="utf8"))["third_parties"]
    assert told["onnx-asr"] == "yes"
    if importlib.util.find_spec("sherpa_onnx") is None:
        assert told["sherpa-onnx"].startswith("not measured: ")
    else:
        assert (
            told["sherpa-onnx"].split(":")[0] in ("yes", "no")
            and "where that of polyvox is" in told["sherpa-onnx"]
        )


def test_onnx_asr_says_the_same(folder: Path, data: Path) -> None:
    onnx_asr = pytest.importorskip("onnx_asr")
    model = onnx_asr.load_model("nemo-conformer-ctc", str(folder))
    for clip, ours in zip(clips(data), Transcriber(folder).transcribe(clips(data)), strict=True):
        sound, rate = soundfile.read(clip, dtype="float32")
        assert " ".join(model.recognize(sound, sample_rate=rate).split()) == ours.text != ""
