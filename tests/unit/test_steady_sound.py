"""A text for a sound whose level is as steady as that of noise or hum is marked, however sure the model is of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import whisper_assets

from training.cli import transcribe
from training.data.example import STEADY, UNCERTAIN, DecodingQuality
from training.models.common import SETTINGS
from training.models.safeguards import Scored
from training.models.whisper.abilities import WhisperScored
from training.transcription.speech_regions import EnergyDetector, track_of
from training.transcription.suspects import with_steady_marked
from training.transcription.transcriber import Transcriber

RATE = 16_000
SECONDS = 4.0


def white() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(SECONDS * RATE))


def pink() -> np.ndarray:
    spectrum = np.fft.rfft(white())
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1))) * 10


def hum() -> np.ndarray:
    time = np.arange(round(SECONDS * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8))


def syllables() -> np.ndarray:
    """Bursts of a voice's harmonics, four in a second, as long as the gaps between them."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    return 0.1 * voice * (np.sin(2 * np.pi * 4 * time) > 0)


def in_noise() -> np.ndarray:
    """The same, in noise as loud as the voice."""
    voice = syllables()
    noise = np.random.default_rng(1).standard_normal(len(voice))
    return voice + noise * np.sqrt(np.mean(voice**2))


SOUNDS = {"white": white, "pink": pink, "hum": hum, "syllables": syllables, "in_noise": in_noise}
STEADY_SOUNDS = {"white", "pink", "hum"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    for name, make in SOUNDS.items():
        soundfile.write(folder / f"{name}.wav", make(), RATE)
    soundfile.write(folder / "long.wav", np.concatenate([syllables()] * 3 + [np.zeros(RATE), white()]), RATE)
    return {name: folder / f"{name}.wav" for name in (*SOUNDS, "long")}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny stock Whisper."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("stock")
    architecture = whisper_assets.tiny()
    architecture.save(folder, architecture.model)
    config = json.loads((folder / "config.json").read_text())
    del config[SETTINGS]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is sure that everybody says thanks, as Whisper base is of much noise."""

    def decode(self: Any, model: Any, prompts: Any, states: Any, search: Any) -> list[list[Scored]]:
        return [[Scored("Thank you.", -0.2)] * prompts.shape[1]] * prompts.shape[0]

    monkeypatch.setattr(WhisperScored, "decode", decode)


def test_noise_and_hum_are_steady_and_speech_in_noise_is_not(files: dict[str, Path]) -> None:
    detector = EnergyDetector()
    found = {name for name in SOUNDS if detector.steady(track_of(files[name], SECONDS, detector))}
    assert found == STEADY_SOUNDS
    assert not detector.steady(track_of(files["hum"], SECONDS, detector)[:90])  # a held vowel is no longer


def test_a_sure_text_for_a_steady_sound_is_marked(stock: Path, files: dict[str, Path]) -> None:
    transcriber = Transcriber(stock, language="en", tasks=("transcribe",))
    for name, row in zip(files, transcriber.transcribe(list(files.values())), strict=True):
        assert row.text
        if name in SOUNDS:
            suspects = [one.quality["transcribe"].suspect for one in row.segments]
            assert suspects == [STEADY if name in STEADY_SOUNDS else None], name


def test_of_a_long_recording_only_the_steady_window_is_marked(stock: Path, files: dict[str, Path]) -> None:
    transcriber = Transcriber(stock, language="en", tasks=("transcribe",), longest=14.0, pack=0.0)
    (row,) = transcriber.transcribe(files["long"])
    marked = [(round(one.start), one.quality["transcribe"].suspect) for one in row.segments]
    assert [suspect for _, suspect in marked[:-1]] == [None] * (len(marked) - 1) and marked[-1] == (
        13,
        STEADY,
    )


def test_the_command_tells_of_it(
    stock: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(files["white"]), "--model", str(stock), "--language", "en", "--format", "json"]
    assert transcribe.main([*command, "--task", "transcribe"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["segments"][0]["suspect"] == "steady_sound"
    assert "white.wav: 0:00.0 to 0:04.0: text for a steady sound (transcribe)" in output.err


def test_another_mark_stays_and_no_text_gets_none() -> None:
    passed = DecodingQuality(temperature=0.0, log_probability=-0.2, compression_ratio=1.0)
    unsure = DecodingQuality(temperature=1.0, log_probability=-2.0, compression_ratio=1.0, suspect=UNCERTAIN)
    found = with_steady_marked(
        {"transcribe": unsure, "translate": passed}, {"transcribe": "a", "translate": "b"}
    )
    assert (found["transcribe"].suspect, found["translate"].suspect) == (UNCERTAIN, STEADY)
    assert with_steady_marked({"transcribe": passed}, {"transcribe": ""})["transcribe"].suspect is None
