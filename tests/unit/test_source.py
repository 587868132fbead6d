"""Datasets of `datasets` as a source: Parquet with the sound inside, audio folders, saved datasets."""

from __future__ import annotations

import csv
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from speech_files import RATE, sound
from torch.utils.data import DataLoader

from training.base.errors import UserError
from training.data.audio import AudioError
from training.data.dataset import SpeechDataset, validate
from training.data.example import TRANSCRIBE, Example
from training.data.sources.dataset import DatasetSource, load_source


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` prepares goes to a temporary folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def encode(example: Example, waveform: np.ndarray) -> dict[str, Any]:
    return {"id": example.id, "wave": waveform, "text": example.texts[TRANSCRIBE]}


def first(features: list[dict[str, Any]]) -> dict[str, Any]:
    return features[0]


def in_parquet(folder: Path, broken: bool = False) -> Path:
    """Three sounds inside a Parquet file, as the hub serves them, with names of others for the columns."""
    contents = [sound(folder / "raw" / f"{i}.flac", 1.0 + i, seed=i).read_bytes() for i in range(3)]
    if broken:
        contents[1] = contents[1][: len(contents[1]) // 2]
    cells = [{"bytes": content, "path": "same_name.flac"} for content in contents]
    table = pa.table(
        {
            "audio": cells,
            "sentence": ["một", "nan", None],
            "client": ["x", "y", "x"],
            "seconds": [1.0, 2.0, 3.0],
        }
    )
    features = datasets.Features(
        {
            "audio": datasets.Audio(),
            "sentence": datasets.Value("string"),
            "client": datasets.Value("string"),
            "seconds": datasets.Value("float32"),
        }
    )
    metadata = {b"huggingface": json.dumps({"info": {"features": features.to_dict()}}).encode()}
    path = folder / "train.parquet"
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


COLUMNS = {"transcript": "sentence", "speaker": "client"}


def test_parquet_with_the_sound_inside(tmp_path: Path) -> None:
    source = load_source(str(in_parquet(tmp_path)), columns={**COLUMNS, "duration": "seconds"})
    assert isinstance(source, DatasetSource)
    assert len(source) == 3
    assert source.ids == ["row 0 (same_name.flac)", "row 1 (same_name.flac)", "row 2 (same_name.flac)"]
    assert [example.texts.get(TRANSCRIBE) for example in source] == ["một", "nan", None]
    assert source.column("speaker") == ["x", "y", "x"]
    assert len(source.waveform(1, RATE)) == 2 * RATE
    assert source.seconds(2) == 3.0
    picked = source.select([2, 0])
    assert [len(picked.waveform(i, RATE)) for i in range(2)] == [3 * RATE, RATE]
    assert picked[0].source == f"{tmp_path / 'train.parquet'}[train]:3"
    assert [text for _, _, text in source.texts()] == ["một", "nan"]


def test_lengths_come_from_the_headers_where_no_column_states_them(tmp_path: Path) -> None:
    source = load_source(str(in_parquet(tmp_path)), columns=COLUMNS)
    np.testing.assert_array_equal(source.durations, np.array([1, 2, 3], np.float32))


# Trap 10.
def test_a_broken_sound_inside_parquet_goes_to_the_ledger(tmp_path: Path) -> None:
    source = load_source(str(in_parquet(tmp_path, broken=True)), columns={**COLUMNS, "duration": "seconds"})
    with pytest.raises(AudioError, match="row 1"):
        source.waveform(1, RATE)
    kept, ledger = validate(SpeechDataset(source, encode, RATE), encodable=False)
    assert kept.tolist() == [0]
    assert [drop.reason for drop in ledger] == ["unreadable_audio", "empty_text"]


# Trap 25.
def test_no_torchcodec_and_spawned_workers(tmp_path: Path) -> None:
    source = load_source(str(in_parquet(tmp_path)), columns={**COLUMNS, "duration": "seconds"})
    data = SpeechDataset(source, encode, RATE, keep_markers=("nan",))
    kept, ledger = validate(data)
    assert kept.tolist() == [0, 1]
    assert [drop.reason for drop in ledger] == ["empty_text"]
    context = multiprocessing.get_context("spawn")
    loader = DataLoader(data.select(kept), num_workers=1, multiprocessing_context=context, collate_fn=first)
    assert [len(features["wave"]) for features in loader] == [RATE, 2 * RATE]
    assert "torchcodec" not in sys.modules


def audio_folder(folder: Path, *rows: tuple[str, str, float]) -> Path:
    for name, _, seconds in rows:
        sound(folder / name, seconds)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file_name", "transcription", "speaker"])
        writer.writerows([name, text, "1"] for name, text, _ in rows)
    return folder


def test_an_audio_folder(tmp_path: Path) -> None:
    folder = audio_folder(tmp_path / "clips", ("a.wav", "xin", 1.0), ("in/b.flac", "NA", 2.5))
    source = load_source(str(folder), columns={"transcript": "transcription"})
    assert [(e.texts[TRANSCRIBE], e.duration, e.speaker) for e in source] == [
        ("xin", 1.0, "1"),
        ("NA", 2.5, "1"),
    ]
    assert len(source.waveform(1, RATE)) == 2.5 * RATE
    assert source[1].source == f"{folder / 'metadata.csv'}:3"
    kept, ledger = validate(SpeechDataset(source, encode, RATE))
    assert (kept.tolist(), ledger.counts()) == ([0], {"missing_text_marker": 1})
    assert validate(SpeechDataset(source, encode, RATE, keep_markers=("NA",)))[0].tolist() == [0, 1]


def test_an_audio_folder_with_parts(tmp_path: Path) -> None:
    audio_folder(tmp_path / "train", ("a.wav", "xin", 1.0))
    audio_folder(tmp_path / "dev", ("b.wav", "chào", 2.0))
    columns = {"transcript": "transcription"}
    assert load_source(str(tmp_path), split="validation", columns=columns)[0].texts == {TRANSCRIBE: "chào"}
    assert len(load_source(str(tmp_path), columns=columns)) == 1
    with pytest.raises(UserError, match=r"has no folder 'test' \(there are: train, dev\)"):
        load_source(str(tmp_path), split="test", columns=columns)


def test_an_audio_folder_without_metadata_is_the_list_of_its_files(tmp_path: Path) -> None:
    sound(tmp_path / "b.wav", 1.0)
    sound(tmp_path / "a" / "c.ogg", 2.0)
    source = load_source(str(tmp_path))
    assert [(e.id, e.duration, dict(e.texts)) for e in source] == [("a/c.ogg", 2.0, {}), ("b.wav", 1.0, {})]


def test_a_broken_file_without_a_stated_length_is_named(tmp_path: Path) -> None:
    folder = audio_folder(tmp_path, ("a.wav", "xin", 1.0), ("b.wav", "chào", 1.0))
    (folder / "b.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"metadata\.csv:3: no duration is stated.*cannot be decoded"):
        load_source(str(folder), columns={"transcript": "transcription"})
    with pytest.raises(
        UserError, match=r"'transcript' is missing.*data\.dataset\.columns\.transcript=transcription"
    ):
        load_source(str(folder))


def test_a_saved_dataset_with_paths(tmp_path: Path) -> None:
    sound(tmp_path / "sounds" / "a.wav", 1.5)
    rows = {"file": ["a.wav"], "transcript": ["xin"], "label": [1]}
    features = datasets.Features(
        {
            "file": datasets.Value("string"),
            "transcript": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["male", "female"]),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    source = load_source(
        str(tmp_path / "saved"), columns={"audio_path": "file"}, audio_root=tmp_path / "sounds"
    )
    assert source[0].duration == 1.5
    assert source.column("label") == ["female"]
    assert len(source.waveform(0, RATE)) == 1.5 * RATE


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = in_parquet(tmp_path)
    with pytest.raises(UserError, match=r"data\.dataset\.columns\.transcript: .* has no column 'text'"):
        load_source(str(path), columns={"transcript": "text"})
    with pytest.raises(UserError, match="has no audio column 'sound'"):
        load_source(str(path), columns={"audio_path": "sound"})
    with pytest.raises(UserError, match=r"\(split 'nowhere'\) cannot be loaded"):
        load_source(str(path), split="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither Parquet nor audio files"):
        load_source(str(tmp_path / "empty"))
