"""An exported Whisper does what the original does: safeguards, languages, word times, beams; with both engines."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_assets import saved, utterances
from test_export import BLOCKED, clips
from whisper_assets import noise

import training.decoding.attention_times as attention_times
from training.api.exporting import export_model
from training.data.example import AudioRef, Example
from training.decoding.loading import Trained, load_trained, with_word_times
from training.models.architecture import AUTO, DecodeOptions
from training.models.common import SETTINGS
from training.models.common.repeated_tokens import stopped_at
from training.models.safeguards import Safeguards, Search
from training.runtime.beam_search import beam_search
from training.runtime.ctranslate2_weights import Weights
from training.runtime.numpy_decoder import NumpyDecoder, gelu
from training.runtime.token_search import Rules, follow
from training.transcription.transcriber import Transcriber

pytest.importorskip("ctranslate2")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ENGINES = ("ctranslate2", "onnx")
WORDS = ("xin chào", "hôm nay chúng ta meeting nhé")
SECONDS = (1.3, 2.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Path:
    """With a CTC head; it detects the language, as a model of stock transformers does whose folder says nothing of it."""
    folder = saved(tmp_path_factory.mktemp("models") / "model", "whisper", ctc_weight=1.0)
    config = json.loads((folder / "config.json").read_text())
    config[SETTINGS]["language_detection"] = True
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for engine in ENGINES:
        export_model(model, folder / engine, format=engine, check=False)
    return {engine: folder / engine for engine in ENGINES}


@pytest.fixture(scope="module")
def original(model: Path) -> Trained:
    return load_trained(model)


@pytest.fixture(scope="module")
def runtimes(exported: dict[str, Path]) -> dict[str, Trained]:
    return {engine: load_trained(folder) for engine, folder in exported.items()}


@pytest.fixture
def any_attention(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model that has learnt nothing places words too."""
    monkeypatch.setattr(attention_times, "LEAST_SHARE", 0.0)
    yield


def batch_of(trained: Trained, language: str = "vi") -> Any:
    architecture = trained.architecture
    examples = [
        Example(id=f"u{n}", audio=AudioRef(path=""), duration=seconds, texts={}, language=language)
        for n, seconds in enumerate(SECONDS)
    ]
    rows = [architecture.encode(one, noise(one.duration, n)) for n, one in enumerate(examples)]
    return architecture.collate(rows)


NEEDED = {
    *(
        "numpy",
        "pydantic",
        "pydantic_core",
        "annotated_types",
        "typing_extensions",
        "typing_inspection",
        "tqdm",
    ),
    *(
        "soundfile",
        "_soundfile",
        "_soundfile_data",
        "cffi",
        "_cffi_backend",
        "soxr",
        "tokenizers",
        *ENGINES[:1],
    ),
    *("onnxruntime", "flatbuffers", "google", "packaging", "coloredlogs", "humanfriendly", "setuptools"),
}
"""What docs/export.md says has to be installed, and what these packages import."""
LOADED = """
import sys
from training.cli import main
status = main(sys.argv[1:])
found = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
print(sorted({one.name.split(".")[0] for one in found if "site-packages" in str(one.origin)}), file=sys.stderr)
sys.exit(status)
"""

GUARDS: dict[str, dict[str, Any]] = {
    "default": {},
    "greedy": {"temperatures": (0.0,)},
    "drawn": {"temperatures": (0.7, 1.0), "log_probability": None},
    "prompt": {"temperatures": (0.0,), "initial_prompt": "meeting <|vi|> chào", "no_repeat_ngram": 2},
    "suppressed": {"temperatures": (0.0,), "suppressed": tuple(range(40, 120)), "repetition": False},
    "silent": {"temperatures": (0.0,), "no_speech": 1e-9, "log_probability": 0.0},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GUARDS)
def test_the_safeguards_are_those_of_the_original(
    name: str, engine: str, original: Trained, runtimes: dict[str, Trained], data: Path
) -> None:
    """Texts, temperatures, probabilities and marks; drawn texts too."""
    guards = Safeguards(**GUARDS[name])
    files = clips(data)[:1] if len(guards.temperatures) > 1 else clips(data)[::2]
    sides = [
        [one.as_dict() for one in Transcriber(side, safeguards=guards).transcribe(files)]
        for side in (original, runtimes[engine])
    ]
    assert sides[1] == close(sides[0])


def close(found: Any) -> Any:
    """The same with numbers that compare as equal within 2e-3: they are written with four digits."""
    if isinstance(found, dict):
        return {key: close(value) for key, value in found.items()}
    if isinstance(found, list):
        return [close(value) for value in found]
    return pytest.approx(found, abs=2e-3) if isinstance(found, float) else found


@pytest.mark.parametrize("engine", ENGINES)
def test_the_language_is_that_of_the_original(
    engine: str, original: Trained, runtimes: dict[str, Trained]
) -> None:
    found = []
    for side in (original, runtimes[engine]):
        architecture = side.architecture
        assert architecture.language_detection is not None
        with architecture.inference():
            found.append(architecture.language_detection.detect(architecture.model, batch_of(side, AUTO)))
    for one, other in zip(found[0].probabilities, found[1].probabilities, strict=True):
        assert one.keys() == other.keys() and max(one, key=one.__getitem__) == max(
            other, key=other.__getitem__
        )
        assert [*other.values()] == pytest.approx([*one.values()], abs=1e-3)
    prompts = found[0].batch["decoder_input_ids"].numpy()
    assert np.array_equal(prompts, found[1].batch["prompts"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("by", ["attention", "head"])
def test_word_times_are_those_of_the_original(
    by: str, engine: str, original: Trained, runtimes: dict[str, Trained], any_attention: None
) -> None:
    found = []
    for side in (original, runtimes[engine]):
        attention = side.architecture.attention
        assert attention is not None and attention.head is not None
        kept = replace(attention, head=attention.head if by == "head" else None)
        timed = with_word_times(replace(side, architecture=replace(side.architecture, attention=kept)))
        with timed.architecture.inference():
            found.append(timed.architecture.align(batch_of(timed), WORDS))
    for text, one, other in zip(WORDS, *found, strict=True):
        assert [word.text for word in one.words] == text.split() == [word.text for word in other.words]
        for word, again in zip(one.words, other.words, strict=True):
            assert abs(word.start - again.start) < 0.021 and abs(word.end - again.end) < 0.021
            assert word.confidence == pytest.approx(again.confidence, abs=1e-3)


@pytest.mark.parametrize("beams", [2, 5])
def test_the_beam_search_of_onnx_is_that_of_transformers(
    beams: int, original: Trained, runtimes: dict[str, Trained]
) -> None:
    options = DecodeOptions(beam_width=beams, max_new_tokens=20)
    texts = []
    for side in (original, runtimes["onnx"]):
        with side.architecture.inference():
            decoded = side.architecture.decode(batch_of(side), options)
        texts.append({task: [row.text for row in rows] for task, rows in decoded.items()})
    assert texts[0] == texts[1] and len(set(texts[0]["transcribe"])) > 1
    guards = Safeguards(temperatures=(0.0,), no_repeat_ngram=3)
    options = replace(options, safeguards=guards)
    scored = []
    for side in (original, runtimes["onnx"]):
        ability = side.architecture.scored
        assert ability is not None
        batch = batch_of(side)
        with side.architecture.inference():
            states = ability.encode(side.architecture.model, batch)
            search = Search(beams=beams, new=20, no_repeat_ngram=3)
            scored.append(ability.decode(side.architecture.model, ability.prompts(batch), states, search))
    for one, other in zip(*scored, strict=True):
        assert [row.text for row in one] == [row.text for row in other]
        assert [row.log_probability for row in one] == pytest.approx(
            [row.log_probability for row in other], abs=1e-4
        )


def test_nothing_but_the_stated_packages_is_imported(exported: dict[str, Path], data: Path) -> None:
    for folder in exported.values():
        command = [str(clips(data)[0]), "--model", str(folder), "--task", "transcribe", "--format", "srt"]
        done = subprocess.run(
            [sys.executable, "-c", LOADED, "transcribe", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
        assert {one for one in loaded - NEEDED if not one.startswith(("__editable__", "_distutils"))} == set()


def test_word_times_and_a_prompt_without_torch_and_transformers(
    exported: dict[str, Path], data: Path
) -> None:
    for folder in exported.values():
        flags = [
            "--format",
            "words",
            "--temperatures",
            "0",
            "0.4",
            "--language",
            "auto",
            "--initial_prompt",
            "a",
        ]
        command = [str(clips(data)[0]), "--model", str(folder), "--task", "transcribe", *flags]
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED, "transcribe", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (
            '"words"' in done.stdout and "tells no times" not in done.stderr and "detected (" in done.stderr
        )


def test_a_text_that_repeats_itself_ends_where_the_original_ends_it() -> None:
    assert stopped_at([*range(5), *[1, 2, 3] * 20]) == 40
    assert stopped_at([1, 2, 3] * 20) == 32
    assert stopped_at(list(range(200))) is None and stopped_at([]) is None


@pytest.mark.parametrize("quantize", [False, True])
def test_the_decoder_of_numpy_computes_the_logits_of_the_model(
    quantize: bool, model: Path, original: Trained, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "out", format="ctranslate2", quantize=quantize, check=False)
    decoder = NumpyDecoder(Weights(tmp_path / "out" / "model.bin"), {1: [0, 1]})
    whisper: Any = original.architecture.model
    ids = torch.tensor([[5, 9, 12, 7, 30]])
    states = torch.randn(1, 60, whisper.config.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = whisper.model.decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False)
        expected = whisper.proj_out(hidden.last_hidden_state)[0].numpy()
    sound = decoder.sound(states.numpy())
    first, past = decoder.pass_on(ids.numpy()[:, :3], [], sound, None)
    second, _ = decoder.pass_on(ids.numpy()[:, 3:], past, sound, None)
    found = decoder.logits(np.concatenate((first, second), axis=1))[0]
    assert np.abs(found - expected).max() < (2.0 if quantize else 1e-3)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_gelu_is_that_of_torch() -> None:
    values = np.linspace(-6, 6, 1001, dtype=np.float32)
    assert np.abs(gelu(values) - torch.nn.functional.gelu(torch.from_numpy(values)).numpy()).max() < 1e-6


class Constant:
    """A decoder that always gives the same logits."""

    def __init__(self, logits: Any) -> None:
        self.logits = np.array(logits, dtype=np.float32)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return np.repeat(self.logits[None], len(ids), axis=0)

    def keep(self, rows: np.ndarray) -> None:
        pass


def test_rules_and_draws_of_the_search() -> None:
    prompts = np.array([[4, 4]])
    rules = Rules(0, suppress=(3,), suppress_first=(2,))
    (row,) = follow(Constant([0.0, 1.0, 2.0, 9.0, -9.0]), prompts, rules, Search(new=3))
    assert row.ids == [1, 2, 2]
    once = Rules(0, no_repeat_ngram=1)
    (row,) = follow(Constant([0.0, 1.0, 2.0, -9.0, 9.0]), prompts, once, Search(new=3))
    assert row.ids == [2, 1]  # 4 stands in the prompt; then nothing but the end is left
    drawn = [
        follow(Constant([0.0, 1.0, 1.0]), prompts, Rules(0), Search(new=40, temperature=1.0))[0].ids
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and set(drawn[0]) <= {1, 2}
    (best,) = beam_search(Constant([3.0, 1.0, 2.0]), prompts, Rules(0), Search(new=4, beams=2))
    assert best.ids == []


def test_the_folder_runs_with_onnxruntime_alone(exported: dict[str, Path], data: Path) -> None:
    clip, run = sorted(data.parent.glob("*.wav"))[0], exported["onnx"] / "run.py"
    head = "import runpy, sys; sys.modules['training'] = sys.modules['torch'] = None; sys.argv[1:] = "
    found = []
    for language in ("auto", "vi"):
        code = f"{head}[{str(clip)!r}, {language!r}]; runpy.run_path({str(run)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        found.append((done.returncode, done.stderr))
    # Random weights never end a text: run.py, which has no bound of its own, must say so and print nothing short.
    assert [status for status, _ in found] == [1, 1]
    assert "which language?" in found[0][1] and "no end of the text" in found[1][1]
