"""One tolerance of 10 ms on every bound of a clip's length, and messages that never contradict themselves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import whisper_assets
from hypothesis import given
from hypothesis import strategies as st
from speech_files import manifest

from training.base.errors import UserError
from training.data.dataset import SpeechDataset, validate
from training.data.example import AudioRef, Example
from training.data.ledger import DropLedger
from training.data.lengths import LENGTH_TOLERANCE, length_drop
from training.data.levels import Level
from training.data.manifest import load_manifest
from training.data.prepare.clean import preprocess
from training.models.architecture import Architecture
from training.models.batch import model_inputs
from training.models.common.log_mels import count_frames, log_mel
from training.registry.checks import Rules
from training.registry.prepare import Settings, prepare

RATE = 16_000
FITS = [480_000, 480_001, 480_100, 480_160]
"""Samples: 30 s and up to 10 ms more."""
TOO_LONG = [480_165, 480_200, 482_000]
LONG_ENOUGH = [1600, 1599, 1441]
TOO_SHORT = [1430, 800]


def clips(folder: Path, sizes: list[int], rate: int = RATE, suffix: str = ".tsv") -> Path:
    rows = []
    for size in sizes:
        path = folder / f"{size}.wav"
        soundfile.write(path, np.random.default_rng(size).uniform(-0.3, 0.3, size), rate)
        cells = {"duration": size / rate, "transcript": "xin", "split": "train"}
        rows.append({"id": str(size), "audio_path": path.name, **cells})
    return manifest(folder / f"m{suffix}", rows)


EXPECTED = {
    **{str(size): "too_long" for size in TOO_LONG},
    **{str(size): "too_short" for size in TOO_SHORT},
}
ALL = [*FITS, *TOO_LONG, *LONG_ENOUGH, *TOO_SHORT]


@pytest.fixture(scope="module")
def whisper() -> Architecture:
    return whisper_assets.tiny()


@pytest.mark.parametrize("decode", [True, False])
def test_preprocess_lets_10_ms_pass(tmp_path: Path, decode: bool) -> None:
    output = tmp_path / "clean.tsv"
    _, ledger = preprocess(clips(tmp_path, ALL), output, min_duration=0.1, max_duration=30.0, decode=decode)
    assert {drop.id: drop.reason for drop in ledger} == EXPECTED
    assert load_manifest(output)[0].duration == 30.0


def test_prepare_data_lets_10_ms_pass(tmp_path: Path) -> None:
    source = clips(tmp_path, ALL, suffix=".csv")
    done = prepare(Settings(table=source, database=str(tmp_path / "r.db"), dry_run=True))
    assert {Path(drop.id).stem: drop.reason for drop in done.ledger} == EXPECTED


def test_training_lets_10_ms_pass_and_trims_what_whisper_hears(tmp_path: Path, whisper: Architecture) -> None:
    rows = load_manifest(clips(tmp_path, ALL))
    data = SpeechDataset(rows, whisper.encode, RATE, min_seconds=0.1, max_seconds=30.0)
    kept, ledger = validate(data, decode=True)
    assert {drop.id: drop.reason for drop in ledger} == EXPECTED
    features = [data[index] for index in kept]
    assert [row["input_features"].shape[-1] for row in features[: len(FITS)]] == [3000] * len(FITS)
    batch = whisper.collate(features[: len(FITS)])
    assert batch["input_features"].shape[-1] == 3000
    assert whisper.model(**model_inputs(batch)).loss.isfinite()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_what_passes_the_bound_at_its_own_rate_can_be_encoded_after_resampling(
    tmp_path: Path, whisper: Architecture, rate: int
) -> None:
    sizes = [30 * rate + round(share * LENGTH_TOLERANCE * rate) for share in (0.0, 0.5, 1.0)]
    rows = load_manifest(clips(tmp_path, sizes, rate))
    data = SpeechDataset(rows, whisper.encode, RATE, max_seconds=30.0)
    kept, ledger = validate(data)
    assert (kept.tolist(), len(ledger)) == ([0, 1, 2], 0)
    assert [data[index]["input_features"].shape[-1] for index in kept] == [3000] * 3


@pytest.mark.parametrize("samples", FITS)
def test_the_frames_that_are_counted_are_those_that_are_made(whisper: Architecture, samples: int) -> None:
    extractor = whisper.processor.feature_extractor
    clip = np.zeros(samples, np.float32)
    assert count_frames(extractor, samples) == log_mel(extractor, clip).shape[-1] == 3000


@given(st.floats(0.0, 400.0), st.floats(0.05, 300.0), st.floats(0.0, 0.05))
def test_no_message_says_that_a_length_is_the_bound_that_it_breaks(
    seconds: float, most: float, least: float
) -> None:
    row = Example(id="a", audio=AudioRef(path="a.wav"), duration=seconds, texts={}, source="m.tsv:2")
    for bound, low in ((most, 0.0), (most, least), (seconds - 0.0101, 0.0), (seconds + 1, seconds + 0.0101)):
        drop = length_drop(row, seconds, max(low, 0.0), bound)
        if drop is None:
            continue
        found = re.search(r"([\d.e+-]+) s, at (most|least) ([\d.e+-]+) s", drop.detail)
        assert found is not None, drop.detail
        said, limit = float(found[1]), float(found[3])
        assert said > limit if found[2] == "most" else said < limit, drop.detail


def test_a_refusal_of_whisper_names_more_than_it_takes(whisper: Architecture) -> None:
    example = whisper_assets.example("a", 30.0, transcribe="x")
    with pytest.raises(ValueError, match=r"30\.013 s of audio, at most 30 s"):
        whisper.encode(example, np.zeros(480_201, np.float32))


def test_a_share_of_clipping_is_not_the_one_that_is_allowed() -> None:
    row = Example(id="a", audio=AudioRef(path="a.wav"), duration=1.0, texts={}, source="m.tsv:2")
    level = Level(1.0, 0.0, -3.0, -3.0, 0.1004, 0.0, constant=False)
    drop = Rules().sound_drop(row, "xin", level)
    assert drop is not None and drop.detail == "m.tsv:2: 10.1 % of the samples, at most 10 %"


def test_a_share_of_rows_is_said_with_their_number() -> None:
    ledger = DropLedger()
    for n in range(201):
        ledger.add(str(n), "too_long")
    with pytest.raises(
        UserError, match=r"201 of 10,000 utterances \(2\.0%\).*2\.0% \(200\) that are allowed"
    ):
        ledger.check_share(10_000, 0.02)
    ledger.drops[29:] = []
    ledger.check_share(100, 0.29)  # 0.29 * 100 is 28.999999999999996
