"""A speech encoder with a language model as ONNX graphs: the same tokens, words and times, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import voxlm_assets
from export_assets import utterances
from test_export import BLOCKED, clips

from training.api.exporting import export_model
from training.cli import main
from training.data.example import TRANSCRIBE
from training.decoding.loading import load_trained
from training.export.decoded import Utterances
from training.models.architecture import DecodeOptions
from training.runtime.folder import PASSED
from training.transcription.transcriber import Transcriber

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Path:
    """After phase 2. Random weights, large enough that what is written depends on the sound."""
    folder = tmp_path_factory.mktemp("model")
    voxlm_assets.parts(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = voxlm_assets.tiny(folder)
        for name, weight in made.model.named_parameters():
            if name.startswith(("language_model.", "audio_encoder.")) and weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.3)
        phase1 = voxlm_assets.saved(made, folder / "phase1")
        aligner = {"width": 16, "layers": 1, "heads": 2}
        made = voxlm_assets.tiny(folder, name=str(phase1), phase=2, aligner=aligner)
        return voxlm_assets.saved(made, folder / "phase2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, model: Path, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    done = export_model(model, folder, manifest=data, tasks=(TRANSCRIBE,))
    assert done.verdict == PASSED, done.findings
    return folder


def test_the_tokens_are_compared(exported: Path) -> None:
    found = json.loads((exported / "parity.json").read_text())["check"]["tasks"]["transcribe"]
    assert found["identical"] == found["utterances"] == 6


def test_text_words_times_and_confidence_are_those_of_the_original(
    model: Path, exported: Path, data: Path
) -> None:
    sides = [Transcriber(folder) for folder in (model, exported)]
    assert sides[1].timed
    originals, others = (side.transcribe(clips(data)) for side in sides)
    assert len({tuple(word.text for word in one.words) for one in originals}) > 3
    for one, other in zip(originals, others, strict=True):
        assert [word.text for word in one.words] == [word.text for word in other.words]
        for word, again in zip(one.words, other.words, strict=True):
            assert abs(word.start - again.start) < 1e-3 and abs(word.end - again.end) < 1e-3
            assert abs(word.confidence - again.confidence) < 1e-4


def test_given_texts_get_the_same_times_in_a_batch(model: Path, exported: Path, data: Path) -> None:
    texts = ["a cat sat on the mat", "", "the dog  ran home", "sea shells", "x", "we met at noon"]
    found = []
    for folder in (model, exported):
        speech = load_trained(folder).architecture
        with speech.inference():
            batch = Utterances(_rows(data)).batch(speech, range(6))
            found.append([row.words for row in speech.align(batch, texts)])
    assert [len(row) for row in found[0]] == [6, 0, 4, 2, 1, 4]
    for one, other in zip(*found, strict=True):
        for word, again in zip(one, other, strict=True):
            assert word.text == again.text
            assert np.allclose([word.start, word.end], [again.start, again.end], atol=1e-3)
            assert word.confidence == pytest.approx(again.confidence, rel=1e-3)


def _rows(data: Path) -> Any:
    from training.data.manifest import load_manifest

    return load_manifest(data)


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
    # Random weights never end a text, and run.py has no bound but that of the positions.
    assert done.stdout.split()[0] == said.words[0].text


@pytest.mark.parametrize("format_", ["ctranslate2", "ggml", "nemo"])
def test_other_formats_are_refused_in_one_line(
    format_: str, model: Path, tmp_path: Path, capsys: Any
) -> None:
    assert (
        main(["export", "--model", str(model), "--format", format_, "--output", str(tmp_path / "out")]) == 2
    )
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith(f"error: --format {format_}")


def test_beams_find_the_same_texts(model: Path, exported: Path, data: Path) -> None:
    texts = []
    for folder in (model, exported):
        speech = load_trained(folder).architecture
        with speech.inference():
            batch = Utterances(_rows(data)).batch(speech, [0, 2, 5])
            found = speech.decode(batch, DecodeOptions(beam_width=3, max_new_tokens=12))
            texts.append([one.text for one in found[TRANSCRIBE]])
    assert texts[0] == texts[1]
