"""An architecture with a CTC output that no code here knows: planned, trained, read by its frames."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gru_ctc
import numpy as np
import pytest
import soundfile

import training as pv
from training.alignment.teachers import load_teacher
from training.base.errors import UserError
from training.config.load import config_from
from training.config.schema import Config
from training.models import lookup
from training.planning.dry_run import VALID, dry_run

TEXTS = ("Xin chào các bạn", "Chúng ta có meeting lúc ba giờ", "Em gửi file cho anh rồi")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = ["id,audio_path,duration,transcript"]
    for i, text in enumerate(TEXTS):
        sound = 0.1 * np.random.default_rng(i).standard_normal(16000 * 2)
        soundfile.write(tmp_path / f"{i}.wav", sound, 16000)
        rows.append(f"u{i},{i}.wav,2.0,{text}")
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**changes: Any) -> Config:
    training = {
        "batch_size": 3,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "report_to": "none",
        "eval_strategy": "no",
    }
    return config_from(
        {
            "model": {"type": changes.pop("type", "gru_ctc:GruCtcArchitecture"), "width": 16, "layers": 1},
            "data": {"train": "train.csv", "test": "train.csv"},
            "training": {**training, "save_strategy": "no", **changes},
            "dataloader": {"num_workers": 0},
            "evaluation": {"resamples": 20},
            "profile": {"device": "cpu"},
            "output": {"dir": "run"},
        },
        name="gru",
    )


def test_texts_longer_than_a_second_of_frames_are_planned(folder: Path) -> None:
    lines: list[str] = []
    assert dry_run(config(), lines.append) == VALID
    said = "\n".join(lines)
    assert re.search(r"3 long clips +loss \d", said) and re.search(r"verdict +fits: ", said)
    assert "not checked" not in said


def test_checkpointing_that_the_model_lacks_is_refused_in_plan_and_training(folder: Path) -> None:
    asked = config(gradient_checkpointing=True)
    for call in (lambda: dry_run(asked, lambda _: None), lambda: pv.train(asked)):
        with pytest.raises(UserError, match=r"training\.gradient_checkpointing: GruCtc does not support it"):
            call()


def test_an_installed_name_trains_scores_and_transcribes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("gru", "gru_ctc:GruCtcArchitecture", lookup.GROUP)
    monkeypatch.setattr(lookup, "entry_points", lambda group: [point] if group == lookup.GROUP else [])
    run = pv.train(config(type="gru"))
    assert run.results["steps"] == 2
    assert pv.evaluate(run).report["rows"] == {"transcribe": 3}
    words = pv.Transcriber(run)("0.wav").words
    assert all(0 <= word.start <= word.end <= 2 for word in words)


def test_frames_without_a_speller_are_read_and_align_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = gru_ctc.CtcFrames
    monkeypatch.setattr(gru_ctc, "CtcFrames", lambda **given: complete(**{**given, "speller": None}))
    run = pv.train(config())
    assert pv.load_model(run.folder).architecture.aligner is None
    assert isinstance(pv.Transcriber(run)("0.wav").text, str)
    with pytest.raises(UserError, match="cannot tell the times of given words"):
        load_teacher(str(run.folder))


def test_labels_that_fit_the_sound_and_not_the_stated_seconds_are_planned(folder: Path) -> None:
    text = "a" * 25  # equal characters need a blank between them: 49 frames of the 50 that 2 s have
    (folder / "train.csv").write_text(
        f"id,audio_path,duration,transcript\nu0,0.wav,1.92,{text}\n", encoding="utf8"
    )
    assert dry_run(config(), lambda _: None) == VALID
