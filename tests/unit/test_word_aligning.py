"""Models that place words: given texts, their own, and recordings of any length."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tone_aligner import CONFIDENCE, align, aligner
from tone_recogniser import GAP, RATE, WORD, WORDS, ToneWords, recogniser, speak, write

from training.base.errors import UserError
from training.cli import inference, transcribe
from training.data.example import TRANSCRIBE, AudioRef, Example
from training.decoding.calibrated import Calibration, weights_of
from training.decoding.loading import Trained
from training.decoding.predict import predict
from training.transcription.transcriber import Transcriber


class Tones:
    """Utterances of tones as `predict` takes them; ``texts``: their references, None for none."""

    def __init__(self, trained: Trained, ids: list[list[int]], texts: list[str | None]) -> None:
        self.architecture = trained.architecture
        self.sounds = [speak(one) for one in ids]
        self.durations = np.array([len(sound) / RATE for sound in self.sounds], dtype=np.float32)
        self.manifest = [
            Example(
                id=f"u{n}",
                audio=AudioRef(path="x"),
                duration=len(sound) / RATE,
                texts={TRANSCRIBE: text} if text is not None else {},
            )
            for n, (sound, text) in enumerate(zip(self.sounds, texts, strict=True))
        ]

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.architecture.encode(self.manifest[row], self.sounds[row])


def said(ids: list[int]) -> str:
    return " ".join(WORDS[k] for k in ids)


def places(count: int) -> list[float]:
    return [0.4 + n * (WORD + GAP) for n in range(count)]


IDS = [[1, 2, 3], [4, 5], [6], [7, 8]]


def test_words_of_the_models_own_text_have_times() -> None:
    trained = aligner()
    rows = Tones(trained, IDS, ["other words"] * 4)
    found = predict(trained.architecture, rows, with_loss=False).hypotheses
    assert [one.text for one in found] == [said(ids) for ids in IDS]
    for one, ids in zip(found, IDS, strict=True):
        assert [word.text for word in one.words] == one.text.split()
        assert [word.start for word in one.words] == pytest.approx(places(len(ids)), abs=0.02)
        assert one.confidence == pytest.approx(CONFIDENCE)


def test_given_text_is_not_recognised_but_placed() -> None:
    """No text is generated; who has no reference has no hypothesis; words without a place have no times."""
    trained = aligner()

    class Silent(ToneWords):
        def generate(self, *args: Any, **more: Any) -> Any:
            raise AssertionError("nothing is to be generated")

    architecture = Silent(
        **{one.name: getattr(trained.architecture, one.name) for one in fields(trained.architecture)}
    )
    rows = Tones(trained, IDS, ["say these words", None, "one word", "two words"])
    found = predict(architecture, rows, given_text=True, with_loss=False)
    assert [len(row.hypotheses) for row in found.predictions] == [1, 0, 1, 1]
    first, third, fourth = found.hypotheses
    assert (first.id, first.text) == ("u0", "say these words")
    assert [word.text for word in first.words] == ["say", "these", "words"]
    assert [word.start for word in first.words] == pytest.approx(places(3), abs=0.02)
    assert (third.text, third.words, third.confidence) == ("one word", (), None)
    assert [word.text for word in fourth.words] == ["two", "words"]


def test_states_of_the_loss_are_handed_on() -> None:
    """One encoding for the loss, the text and the times."""
    import torch

    states, seen = torch.zeros(1), []

    class Model(torch.nn.Linear):
        def forward(self, **batch: Any) -> Any:
            return type("Output", (), {"loss": torch.tensor(1.0), "encoder_last_hidden_state": states})()

    def watched(model: Any, batch: Any, texts: list[str], states: Any = None) -> Any:
        seen.append(states)
        return align(model, batch, texts)

    trained = aligner(watched)
    encode, collate = trained.architecture.encode, trained.architecture.collate
    architecture = replace(
        trained.architecture,
        model=Model(1, 1),
        collate=lambda rows: {**collate(rows), "labels": torch.ones(1, 1)},
    )
    predict(architecture, Tones(replace(trained, architecture=architecture), IDS[:1], ["w1 w2 w3"]))
    assert encode is architecture.encode and seen == [states]


@pytest.mark.parametrize("pauses", [True, False])
def test_long_recordings_have_the_times_of_the_recording(tmp_path: Path, pauses: bool) -> None:
    """Also where windows overlap, and where one word is repeated."""
    ids = random.Random(0).choices(range(24), k=150) + [3] * 150
    gaps = dict.fromkeys(range(9, 300, 10), 1.2) if pauses else {}
    path = write(tmp_path / "long.wav", speak(ids, gaps))
    transcriber = Transcriber(aligner(), detector="energy")
    recording = transcriber.plan(path)
    assert transcriber.timed and any(window.stitch_at is not None for window in recording.windows) != pauses
    result = transcriber.finish([recording])[0]
    assert not isinstance(result, UserError)
    assert result.text == said(ids) and len(result.words) == 300
    starts, now = [], 0.4
    for n in range(300):
        starts.append(now)
        now += WORD + gaps.get(n, GAP)
    assert [word.start for word in result.words] == pytest.approx(starts, abs=0.05)
    assert result.confidence == pytest.approx(CONFIDENCE)


def test_words_that_find_no_place_are_kept_without_times(tmp_path: Path) -> None:
    """The middle one of three windows fails: its text is there, its words are not among those with times."""
    calls = []

    def failing(model: Any, batch: Any, texts: list[str], states: Any = None) -> Any:
        found = align(model, batch, texts)
        calls.extend(found)
        return [() if text.startswith(WORDS[5]) else one for one, text in zip(found, texts, strict=True)]

    path = write(tmp_path / "a.wav", speak([1, 2, 5, 6, 7, 3], {1: 1.5, 4: 1.5}))
    result = Transcriber(aligner(failing), detector="energy", always_cut=True, pack=0).transcribe(path)[0]
    assert len(calls) == 3
    assert result.text == said([1, 2, 5, 6, 7, 3])
    assert [word.text for word in result.words] == [WORDS[1], WORDS[2], WORDS[3]]
    assert [len(words) for words in result.placed] == [2, 3, 1]


@pytest.mark.parametrize("ctc", [True, False])
def test_confidence_leaves_calibrated(tmp_path: Path, ctc: bool) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    trained = recogniser(ctc=True) if ctc else aligner()
    decoding = {"beam_width": 1, "search": "own"} if ctc else {"beam_width": 1}
    half = Calibration(
        method="isotonic", knots=((0.0, 0.5), (1.0, 0.5)), decoding=decoding, weights=weights_of(tmp_path)
    )
    trained = replace(trained, folder=tmp_path, calibration=half)
    path = write(tmp_path / "a.wav", speak([1, 2]))
    transcriber = Transcriber(trained)
    result = transcriber.transcribe(path)[0]
    assert [word.confidence for word in result.words] == [0.5, 0.5] and result.confidence == pytest.approx(
        0.5
    )
    assert "confidence is calibrated" in transcriber.note
    stale = Transcriber(replace(trained, calibration=replace(half, weights="other")))
    assert stale.transcribe(path)[0].words[0].confidence > 0.7
    assert "other weights" in stale.note


def test_the_guides_command_prints_its_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.wav", speak([1, 2]))
    seen = []

    def made(args: Any) -> Transcriber:
        seen.append(args)
        return Transcriber(aligner(), detector="energy")

    monkeypatch.setattr(transcribe, "_transcriber", made)
    assert inference.main(["--checkpoint", "model", "--audio", str(path), "--beam_width", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == said([1, 2]) and list(found) == ["text", "words"]
    assert [word["word"] for word in found["words"]] == [WORDS[1], WORDS[2]]
    assert all(list(word) == ["word", "start", "end", "confidence"] for word in found["words"])
    assert (str(seen[0].model), seen[0].beam_width) == ("model", 2)


def test_models_without_times_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.wav", speak([1, 2]))
    monkeypatch.setattr(transcribe, "_transcriber", lambda args: Transcriber(recogniser(ctc=False)))
    with pytest.raises(UserError, match="tells no times of words"):
        transcribe.main([str(path), "--model", "m", "--format", "ctm"])
    assert inference.main(["--checkpoint", "m", "--audio", str(path)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"text": said([1, 2]), "words": []} and "tells no times of words" in err


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", speak([1]))
    monkeypatch.setattr(transcribe, "_transcriber", lambda args: Transcriber(aligner()))
    for name in ("textgrid", "words", "ctm"):
        out = ["--output_dir", str(tmp_path / "out"), "--format", name]
        assert transcribe.main([str(path), "--model", "m", *out]) == 0
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["a.TextGrid", "a.ctm", "a.words.json"]
