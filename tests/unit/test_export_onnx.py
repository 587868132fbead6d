"""CTC models as ONNX graphs: the same log-mels, labels, words and times, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctc_assets import noise, saved, tiny
from export_assets import utterances
from test_export import BLOCKED, clips

import training.export.exporting as exporting
from training.api.exporting import export_model
from training.decoding.calibrated import Calibration, weights_of
from training.export.to_onnx import write_onnx
from training.models.ctc.export import _features
from training.models.export_parts import OnnxModel, OnnxPart
from training.runtime.folder import PASSED
from training.runtime.onnx_session import Session
from training.transcription.transcriber import Transcriber

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"))


MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"num_encoder_layers": 1, "feature_norm": "peak", "edge_silence": 0.2},
    "whisper": {"head_layers": 1, "conv_kernel": 3},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: Any, tmp_path_factory: Any) -> Path:
    torch.manual_seed(0)
    made = tiny(request.param, **MODELS[request.param])
    torch.nn.init.normal_(made.model.ctc_head.weight, std=1.0)
    return saved(made, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, model: Path, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    done = export_model(model, folder, manifest=data)
    assert done.verdict == PASSED, done.findings
    return folder


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("fastconformer", {}),
        ("transformer", {"feature_norm": "clip"}),
        ("transformer", {"feature_norm": "peak", "edge_silence": 0.2}),
        ("transformer", {"sample_rate": 8000}),
        ("wav2vec2", {}),
    ],
)
def test_the_graph_of_the_features_gives_those_of_the_extractor(
    encoder: str, options: dict[str, Any]
) -> None:
    architecture = tiny(encoder, **options)
    extractor: Any = architecture.processor.feature_extractor
    graph = _features(architecture).module
    for seconds in (0.2, 1.0, 2.217):
        sound = noise(seconds, rate=extractor.sampling_rate)
        stock = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="np")
        expected = np.asarray(stock[extractor.model_input_names[0]][0])
        if encoder != "wav2vec2":
            expected = expected[: int(stock["attention_mask"][0].sum())]
        found = graph(torch.from_numpy(sound)).numpy()
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-3


def test_words_times_and_confidence_are_those_of_the_original(
    model: Path, exported: Path, data: Path
) -> None:
    sides = [Transcriber(folder) for folder in (model, exported)]
    assert sides[1].timed
    originals, others = (side.transcribe(clips(data)) for side in sides)
    assert any(one.words for one in originals)
    for one, other in zip(originals, others, strict=True):
        assert [word.text for word in one.words] == [word.text for word in other.words]
        for word, again in zip(one.words, other.words, strict=True):
            assert abs(word.start - again.start) < 0.021 and abs(word.confidence - again.confidence) < 1e-3


def test_words_without_torch_and_transformers(exported: Path, data: Path) -> None:
    command = [str(clips(data)[0]), "--model", str(exported), "--format", "words"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "transcribe", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"confidence"' in done.stdout


def test_the_folder_runs_with_its_engine_alone(model: Path, exported: Path, data: Path) -> None:
    clip = clips(data)[1]
    code = f"import sys; sys.modules['training'] = sys.modules['torch'] = None; sys.argv[1:] = ['{clip}']; import runpy; runpy.run_path('{exported / 'run.py'}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (said,) = Transcriber(model).transcribe([clip])
    assert done.stdout.strip() == " ".join(word.text for word in said.words)


def test_a_calibration_is_not_carried_over_in_silence(
    model: Path, exported: Path, data: Path, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    def copied(part: Any, folder: Path, precision: str, **options: Any) -> None:
        for path in exported.glob("*.onnx"):
            shutil.copyfile(path, folder / path.name)

    monkeypatch.setitem(exporting.WRITERS, "onnx", copied)
    Calibration(method="platt", weights=weights_of(model)).write(model)
    export_model(model, tmp_path / "out", check=False)
    assert not (tmp_path / "out" / "calibration.json").exists()
    assert "polyvox calibrate" in caplog.text
    assert weights_of(tmp_path / "out") != weights_of(model)


def test_the_weights_of_a_large_graph_are_quantised_in_their_own_file(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    linear, sound = torch.nn.Linear(64, 32), torch.randn(2, 64)
    part = OnnxPart(
        name="encoder", module=linear, inputs={"x": sound}, outputs=("y",), dynamic={"x": {0: "batch"}}
    )
    found = {}
    for precision in ("fp32", "int8"):
        (folder := tmp_path / precision).mkdir()
        write_onnx(OnnxModel(lambda: (part,)), folder, precision)
        found[precision] = (folder / "encoder.onnx.data").stat().st_size
        (y,) = Session(folder / "encoder.onnx")(x=sound.numpy())
        assert np.abs(y - linear(sound).detach().numpy()).max() < (1e-5 if precision == "fp32" else 0.05)
    assert found["int8"] < 0.5 * found["fp32"]


class Tied(torch.nn.Module):
    """A table that is looked up, and that is a matrix too: of vectors (a Gemm), or of sequences of them."""

    def __init__(self, vectors: bool) -> None:
        super().__init__()
        self.table, self.head, self.vectors = (
            torch.nn.Embedding(64, 32),
            torch.nn.Linear(32, 64, False),
            vectors,
        )
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.table(ids)
        return self.head(hidden[:, -1] if self.vectors else hidden)


@pytest.mark.parametrize("vectors", [True, False])
def test_a_tied_table_is_quantised_as_a_matrix_alone(vectors: bool, tmp_path: Path) -> None:
    ids, module = torch.arange(12).reshape(3, 4), Tied(vectors)
    part = OnnxPart(
        name="decoder", module=module, inputs={"x": ids}, outputs=("y",), dynamic={"x": {0: "rows"}}
    )
    write_onnx(OnnxModel(lambda: (part,)), tmp_path, "int8")
    (y,) = Session(tmp_path / "decoder.onnx")(x=ids.numpy())
    assert np.abs(y - module(ids).detach().numpy()).max() < 0.5
