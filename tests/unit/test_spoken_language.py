"""The language of a recording: detected where the model's folder names none, else the model's own, else the one asked for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import whisper_assets
from tone_recogniser import recogniser

import training
from training.base.errors import UserError
from training.base.language_names import language_code, language_name, short_code
from training.cli import check_deployment, timestamps, transcribe
from training.decoding.loading import Trained, load_trained
from training.models.architecture import AUTO, BuildContext
from training.models.common import SETTINGS
from training.models.lookup import load
from training.models.whisper.abilities import DetectLanguage
from training.models.whisper.config import Options
from training.transcription.spoken_language import detected, first_windows, likeliest
from training.transcription.transcriber import Transcriber
from training.transcription.windows import Window

RATE = 16_000
SHORT = ["--temperatures", "0", "--task", "transcribe"]


def prefers(model: Any, tokenizer: Any, language: str) -> None:
    """Make a language's token the likeliest after the start token, whatever the sound is."""
    with torch.no_grad():
        states = model.encode(torch.zeros(1, 80, 3000))
        start = torch.full((1, 1), model.config.decoder_start_token_id)
        hidden = model.model.decoder(
            input_ids=start, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state[0, 0]
        token = tokenizer.convert_tokens_to_ids(f"<|{language}|>")
        model.get_input_embeddings().weight[token] = 5 * hidden / hidden.norm()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny multilingual Whisper that stock transformers wrote: it names no language. It detects German."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("stock")
    architecture = whisper_assets.tiny()
    prefers(architecture.model, architecture.processor.tokenizer, "de")
    architecture.save(folder, architecture.model)
    config = json.loads((folder / "config.json").read_text())
    del config[SETTINGS]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    parts = {
        "short": whisper_assets.noise(2.0),
        "silent": np.zeros(2 * RATE, dtype=np.float32),
        "long": np.concatenate(
            [whisper_assets.noise(29.0), np.zeros(2 * RATE, np.float32), whisper_assets.noise(3.0, 1)]
        ),
    }
    for name, sound in parts.items():
        soundfile.write(folder / f"{name}.wav", sound, RATE)
    return {name: folder / f"{name}.wav" for name in parts}


def languages_asked(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The language token of every row that is decoded from now on."""
    asked: list[str] = []
    model, tokenizer = transcriber.architecture.model, transcriber.architecture.processor.tokenizer
    whole = model.generate_scored

    def spy(states: Any, prompts: Any, **generation: Any) -> Any:
        asked.extend(tokenizer.convert_ids_to_tokens(prompts[:, 0, 1].tolist()))
        return whole(states, prompts, **generation)

    monkeypatch.setattr(model, "generate_scored", spy)
    return asked


def test_a_stock_whisper_detects_the_language_and_no_longer_takes_vietnamese(
    stock: Path, sounds: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ([], ["--language", "auto"]):
        command = [str(sounds["short"]), "--model", str(stock), "--format", "json", *SHORT, *extra]
        assert transcribe.main(command) == 0
        output = capsys.readouterr()
        found = json.loads(output.out)
        assert "transcribe" in found and "translate" not in found  # nobody asked for a translation
        assert found["language"] == "de" and 0.5 < found["language_probability"] <= 1
        assert "short.wav: language de, detected (" in output.err


def test_all_windows_are_decoded_in_the_language_of_the_first(
    stock: Path, sounds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = Transcriber(stock, tasks=("transcribe",), safeguards=training_guards())
    asked = languages_asked(transcriber, monkeypatch)
    long, silent, short = transcriber.transcribe([sounds[name] for name in ("long", "silent", "short")])
    assert asked == ["<|de|>"] * 3  # two windows and one; nothing is decoded for silence
    assert long.language is not None and long.language.code == "de"
    assert silent.language is None and silent.text == "" and silent.as_dict()["language"] is None
    assert short.language is not None and short.language.probability is not None


def training_guards() -> Any:
    from training.models.safeguards import Safeguards

    return Safeguards(temperatures=(0.0,))


def test_where_the_model_finds_no_speech_there_is_no_detected_language(
    stock: Path, sounds: dict[str, Path]
) -> None:
    guards = replace(training_guards(), no_speech=-1.0, log_probability=0.0)  # every text is left out
    transcriber = Transcriber(stock, tasks=("transcribe",), safeguards=guards)
    (found,) = transcriber.transcribe(sounds["short"])
    assert not found.segments and found.no_speech and found.as_dict()["language"] is None
    given = Transcriber(transcriber.trained, language="ko", safeguards=guards)
    assert given(sounds["short"]).as_dict()["language"] == "ko"


def test_the_language_is_told_where_all_text_was_left_out_of_what_may_be_speech(
    stock: Path, sounds: dict[str, Path], tmp_path: Path
) -> None:
    """Bursts are not the steady sound of noise: the model may not understand who speaks there."""
    sound, _ = soundfile.read(sounds["short"])
    bursts = sound * (np.sin(2 * np.pi * 4 * np.arange(len(sound)) / RATE) > 0)
    soundfile.write(tmp_path / "bursts.wav", bursts, RATE)
    guards = replace(training_guards(), no_speech=-1.0, log_probability=0.0)  # every text is left out
    found = Transcriber(stock, tasks=("transcribe",), safeguards=guards)(tmp_path / "bursts.wav")
    assert not found.segments and found.no_speech and found.as_dict()["language"] == "de"


def test_a_given_language_is_used_and_an_unknown_one_refused(
    stock: Path, sounds: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = training.transcribe(sounds["short"], stock, language="ko", safeguards=training_guards())
    assert found[0].language is not None
    assert (found[0].language.code, found[0].language.probability) == ("ko", None)
    with pytest.raises(UserError, match="'xx' has no token"):
        Transcriber(stock, language="xx")
    from training.cli import main

    command = ["transcribe", str(sounds["short"]), "--model", str(stock), "--language", "xx"]
    assert main(command) == 2
    assert "--language xx" in capsys.readouterr().err


def test_names_of_languages_have_codes() -> None:
    given = ("German", "mandarin", " VALENCIAN ", "de", "de-AT", "klingon")
    assert [language_code(one) for one in given] == ["de", "zh", "ca", "de", "de-AT", "klingon"]
    assert [short_code(one) for one in ("DE", "vi_VN", "de-AT", "klingon")] == ["de", "vi", "de", None]
    assert [language_name(one) for one in ("ko", "mdw")] == ["Korean", "Mdw"]


@pytest.mark.parametrize("given", ["Korean", "korean", "KO", "ko-KR", "ko"])
def test_a_language_may_be_named(
    stock: Path, sounds: dict[str, Path], capsys: pytest.CaptureFixture[str], given: str
) -> None:
    command = [str(sounds["short"]), "--model", str(stock), "--format", "json", *SHORT, "--language", given]
    assert transcribe.main(command) == 0
    assert json.loads(capsys.readouterr().out)["language"] == "ko"


def test_commands_that_ask_for_the_language_of_rows_take_its_name() -> None:
    for command, rest in (
        (check_deployment, ["FOLDER"]),
        (timestamps, ["--data", "d", "--split", "dev", "--output", "o", "--model", "tiny"]),
    ):
        assert command.parser().parse_args([*rest, "--language", "Korean"]).language == "ko"


def test_a_table_s_language_is_a_code(stock: Path) -> None:
    architecture = load_trained(stock).architecture
    spoken = replace(whisper_assets.example("u", 1.0, transcribe="xin"), language="German")
    with pytest.raises(ValueError, match="the code of German is de"):
        architecture.encode.check(spoken, 1.0)


def test_a_model_with_an_own_vocabulary_keeps_its_language(tmp_path: Path, sounds: dict[str, Path]) -> None:
    own = whisper_assets.tiny(language="ko", task="transcribe")
    own.save(tmp_path, own.model)
    transcriber = Transcriber(tmp_path, safeguards=training_guards())
    assert transcriber.language is None
    (found,) = transcriber.transcribe(sounds["short"])
    assert found.language is not None and found.language.code == "ko" and found.language.probability is None
    with pytest.raises(UserError, match=r"--language auto.*not learnt to detect.*its own \(ko\) is used"):
        Transcriber(tmp_path, language=AUTO)
    with pytest.raises(UserError, match=r"--language auto.*leave the option out"):
        Transcriber(recogniser(ctc=True), language=AUTO)


def test_a_tuned_model_keeps_its_language_and_detects_where_it_is_asked(
    stock: Path, sounds: dict[str, Path], tmp_path: Path
) -> None:
    whisper = load("whisper")
    options = whisper.Options(name=str(stock), language="ko", task="transcribe", max_label_tokens=64)
    tuned = whisper.build(options, BuildContext())
    tuned.save(tmp_path, tuned.model)
    transcriber = Transcriber(tmp_path, safeguards=training_guards())
    assert transcriber(sounds["short"]).language.code == "ko"  # type: ignore[union-attr]
    asked = Transcriber(transcriber.trained, language=AUTO, safeguards=training_guards())
    assert asked(sounds["short"]).language.code == "de"  # type: ignore[union-attr]


def test_domain_and_language_are_both_predicted(stock: Path, sounds: dict[str, Path]) -> None:
    whisper = load("domain_whisper")
    blocks = {"encoder_blocks": 1, "decoder_blocks": 1}
    options = whisper.Options(name=str(stock), language="ko", max_label_tokens=64, unfreeze=blocks)
    trained = Trained(whisper.build(options, BuildContext()), stock, "domain_whisper", None)
    transcriber = Transcriber(trained, domain=AUTO, language=AUTO, safeguards=training_guards())
    (row,) = transcriber.transcribe(sounds["short"])
    assert row.language is not None and row.language.code == "de"
    assert all(segment.domain in ("normal", "dyslexic") for segment in row.segments)


def test_a_training_text_without_a_language_is_refused(stock: Path) -> None:
    architecture = load_trained(stock).architecture
    assert architecture.languages == (AUTO, AUTO)
    spoken = replace(whisper_assets.example("u", 1.0, transcribe="xin"), language=None)
    with pytest.raises(ValueError, match="no language is named"):
        architecture.encode.check(spoken, 1.0)
    with pytest.raises(ValueError, match="auto needs a pretrained model"):
        Options(sizes={"vocab_size": 300}, language=AUTO)


def test_an_english_whisper_speaks_english(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 51864}')
    assert Options.stock_options(tmp_path)["language"] == "en"
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": true}')
    assert Options.stock_options(tmp_path)["language"] == AUTO


def test_the_first_ten_seconds_decide() -> None:
    windows = [Window(n * 5.0, n * 5.0 + 4.0) for n in range(6)]
    assert first_windows(windows) == 3 and first_windows(windows[:1]) == 1 and first_windows([]) == 0
    found = detected([(1.0, {"ko": 0.9, "ja": 0.1}), (8.0, {"ko": 0.3, "ja": 0.7}), (9.0, {})])
    assert found is not None and found.code == "ja" and found.probability == pytest.approx(5.7 / 9)
    assert detected([]) is None


def manifest(folder: Path, sound: Path) -> Path:
    path = folder / "test.tsv"
    path.write_text(
        f"id\taudio_path\tduration\ttranscript\ttranslation\na\t{sound}\t2.0\txin chào\thello\n",
        encoding="utf8",
    )
    return path


def test_a_stock_folder_is_scored_with_settings_of_its_own(
    stock: Path, sounds: dict[str, Path], tmp_path: Path
) -> None:
    scores = training.evaluate(
        stock,
        manifest=manifest(tmp_path, sounds["short"]),
        overrides=["resamples=50", "silence_probes=false", "fallback=true", "max_new_tokens=8"],
    )
    meta = scores.report["meta"]
    assert scores.report["intervals"]["resamples"] == 50
    assert meta["evaluation"]["fallback"] is True and meta["detected_languages"] == {"de": 1}
    assert meta["generation"]["fallback"]["compression_ratio"] == 2.4
    with pytest.raises(UserError, match="--evaluation nothing=1"):
        training.evaluate(stock, manifest=tmp_path / "test.tsv", overrides=["nothing=1"])


@pytest.mark.skipif("POLYVOX_MODELS" not in os.environ, reason="needs Whisper base: set POLYVOX_MODELS")
def test_whisper_base_recognises_german_and_says_nothing_of_silence(
    tmp_path: Path, sounds: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    soxr, espeak = pytest.importorskip("soxr"), pytest.importorskip("training.synthetic.espeak")
    speaker = espeak.Espeak(0)
    speaker.set_voice("de", rate=150)
    sound = speaker.speak(
        espeak.ssml([("Guten Tag. Heute ist das Wetter schön, und wir gehen in die Stadt.", None)])
    )
    path = tmp_path / "german.wav"
    soundfile.write(path, soxr.resample(sound.astype(np.float32) / 32768, speaker.sample_rate, RATE), RATE)
    model = Path(os.environ["POLYVOX_MODELS"]) / "whisper-base"
    files = [str(path), str(sounds["silent"])]
    command = [*files, "--model", str(model), "--task", "transcribe", "--format", "json"]
    assert transcribe.main(command) == 0
    german, silent = map(json.loads, capsys.readouterr().out.splitlines())
    assert german["language"] == "de" and "Guten Tag" in german["text"]
    assert silent["text"] == "" and silent["language"] is None


class Torn:
    """A model that takes the speech for Chinese by its language token, and for English by what it would write."""

    def __init__(self, sure: float, texts: dict[int, list[int]]) -> None:
        self.sure, self.texts, self.asked = sure, texts, 0

    def next_logits(self, states: Any, starts: Any) -> torch.Tensor:
        shares = torch.tensor([1e-6, 1 - self.sure, self.sure, 1e-9])
        return shares.log().repeat(len(starts), 1)

    def generate_scored(self, states: Any, prompts: Any, **generation: Any) -> Any:
        self.asked += 1
        assert prompts[0, :, 0].unique().tolist() == [9] and prompts[0, :, 2:].unique().tolist() == [7, 8]
        asked = prompts[0, :, 1].tolist()
        written = torch.tensor([[self.texts.get(token, TEXT) for token in asked]])
        return written, torch.tensor([[-0.3 if token == 1 else -1.7 for token in asked]])


TEXT = list(range(20, 44))
PHRASE = [30, 31, 32]


@pytest.mark.parametrize(
    ("sure", "texts", "wanted"),
    [
        (0.7, {}, "en"),
        (0.95, {}, "zh"),  # the token is sure
        (0.7, {1: PHRASE * 8}, "zh"),  # a decoder is sure of a loop in any language
        (0.7, {1: [40, 41, 42, *[0] * 21]}, "en"),  # a short text, filled up with end tokens
        (0.7, dict.fromkeys((1, 2, 3), PHRASE * 8), "zh"),  # nothing to compare
    ],
)
def test_where_the_language_token_is_unsure_the_texts_decide(
    sure: float, texts: dict[int, list[int]], wanted: str
) -> None:
    model, ids = Torn(sure, texts), {"en": 1, "zh": 2, "xx": 3}
    batch = {"decoder_input_ids": torch.tensor([[[9, 0, 7, 8]], [[9, 3, 7, 8]]]), "prompt_length": 4}
    detect = DetectLanguage(ids, start_id=9, open_id=0, prompt=(7, 8))
    found = detect(model, batch, torch.zeros(2, 1, 1))
    assert found.batch["decoder_input_ids"][:, 0, 1].tolist() == [ids[wanted], 3]
    assert likeliest(found.probabilities[0]) == wanted and found.probabilities[1] == {}
    assert model.asked == (sure < 0.9) and sum(found.probabilities[0].values()) == pytest.approx(1, abs=1e-3)
