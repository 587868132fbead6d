"""Padded frames are counted as collators make them, and a sampler that loses clips gets no ratio."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def padding(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("POLYVOX_SPEECH", raising=False)
    return importlib.import_module("padding")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    seconds = np.random.default_rng(0).uniform(0.5, 9, 120)
    rows = [f"{i}.wav\t{s:.3f}\ta" for i, s in enumerate(seconds)]
    path = tmp_path / "manifest.tsv"
    path.write_text("\n".join(["audio_path\tduration\ttranscript", *rows]) + "\n", encoding="utf8")
    return path


def shipped(name: str) -> Any:
    return load_config(ROOT / "configs" / f"{name}.yaml")


def test_frames_are_those_of_the_encoders(padding: Any) -> None:
    seconds = np.array([0.5, 1.239, 30.0])
    # Whisper: 40 ms of silence after a clip, 30 s at most. CTC: what is left of a hop is dropped.
    assert padding.frames_of(shipped("demo_whisper"), seconds).tolist() == [54, 127, 3000]
    assert padding.frames_of(shipped("digits_ctc"), seconds).tolist() == [50, 123, 3000]
    on_whisper = shipped("cpu_ctc_whisper")
    assert padding.frames_of(on_whisper, seconds).tolist() == [54, 127, 3000]
    assert padding.context_of(on_whisper).padding == "longest"


def test_padding_is_what_rows_hold_beyond_their_clips(padding: Any) -> None:
    corpus = padding.Corpus("x", np.array([1.0, 0.5, 0.5]), np.array([100, 50, 50]))
    found = padding.counted(corpus, [[0, 1], [2]])
    assert (found["frames"], found["batches"], found["whole"]) == (250, 2, True)
    assert found["padding"] == found["collated"] == pytest.approx(0.2)
    assert padding.counted(corpus, [[0, 1], [2]], 3000)["padding"] == pytest.approx(1 - 200 / 9000)
    margin = padding.counted(corpus, [[0, 1], [2]], context=padding.Context("trimmed", 0.5))
    assert margin["padding"] == pytest.approx(0.2)
    assert margin["collated"] == pytest.approx(1 - 200 / (2 * 150 + 100))


def test_every_configuration_is_counted_on_every_corpus(padding: Any, manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "padding.json"
    options = ["--no_demo", "--repeats", "2", "--buckets", "2", "--output", str(output)]
    assert padding.main([str(manifest), *options, "--configs", "demo_whisper", "demo_ctc"]) == 0
    found = json.loads(output.read_text(encoding="utf8"))
    assert [one["config"] for one in found["results"]] == ["demo_whisper", "demo_ctc"]
    arms = found["rounds"][0]["arms"]
    whisper = {name.split(", ")[-1]: one for name, one in arms.items()}
    assert set(whisper) == {"padded", "random", "grouped", "ours"}
    assert whisper["padded"]["padding"] > whisper["random"]["padding"] > whisper["ours"]["padding"]
    assert not any("padded" in name for one in found["rounds"][2:] for name in one["arms"])


def test_a_sampler_that_loses_a_clip_gets_no_ratio(
    padding: Any, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = padding.grouped_batches
    monkeypatch.setattr(padding, "grouped_batches", lambda *args: kept(*args)[1:])
    options = ["--no_demo", "--repeats", "1", "--buckets", "--configs", "demo_ctc"]
    assert padding.main([str(manifest), *options]) == 1
    printed = capsys.readouterr()
    assert "grouped does not give every clip once" in printed.err
    assert printed.out.splitlines()[1].endswith(" -")


def test_nothing_to_measure_is_the_users_mistake(padding: Any) -> None:
    with pytest.raises(padding.UserError, match="nothing to measure"):
        padding.main(["--no_demo"])
