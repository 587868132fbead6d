"""The dataset: what is refused before training, and that nothing is replaced during it."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_files import RATE, manifest, sound
from torch.utils.data import DataLoader

from training.base.errors import UserError
from training.data.augment import Moved
from training.data.dataset import DataError, SpeechDataset, validate
from training.data.example import TRANSCRIBE, Example
from training.data.manifest import load_manifest
from training.engine.run import usable

MAX_LABELS = 448


def encode(example: Example, waveform: np.ndarray) -> dict[str, Any]:
    """Like an architecture's: ids of the characters, at most 448 of them."""
    labels = [ord(character) for character in example.texts.get(TRANSCRIBE, "")]
    if len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} label tokens, at most {MAX_LABELS}")
    return {"id": example.id, "seconds": len(waveform) / RATE, "labels": labels, "wave": waveform}


def collate(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return features


class Louder:
    """Twice as loud; writes the draw that it was asked for into the features."""

    def waits(self, epoch: int) -> bool:
        return False

    def generator(self, epoch: int, index: int) -> Any:
        return (epoch, index)

    def moved(self, waveform: np.ndarray, draw: Any) -> tuple[np.ndarray, Moved]:
        return waveform * 2, Moved()

    def pauses(self, clips: int, draw: Any) -> list[int]:
        return [0] * (clips - 1)

    def features(self, features: dict[str, Any], draw: Any) -> dict[str, Any]:
        return {**features, "drawn_for": (draw[0], draw[1])}


def dataset(folder: Path, rows: list[dict[str, Any]], **options: Any) -> SpeechDataset:
    return SpeechDataset(load_manifest(manifest(folder / "m.tsv", rows)), encode, RATE, **options)


def row(
    folder: Path, name: str, seconds: float, stated: float | None = None, text: str = "xin"
) -> dict[str, Any]:
    path = sound(folder / f"{name}.wav", seconds)
    return {"id": name, "audio_path": path.name, "duration": stated or seconds, "transcript": text}


def test_items_are_the_decoded_and_encoded_rows(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 1.0), row(tmp_path, "b", 2.0, text="chào")])
    features = data[1]
    assert (features["id"], features["seconds"]) == ("b", 2.0)
    assert features["labels"] == [ord(c) for c in "chào"]
    assert np.abs(features["wave"]).max() > 0.1
    np.testing.assert_array_equal(data.durations, np.array([1, 2], np.float32))
    assert data.select([1])[0]["id"] == "b"


def test_augmentation_runs_before_encoding_and_only_where_it_is_drawn(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 1.0)], augment=Louder()).select([0])
    np.testing.assert_allclose(data.drawn(0, 3)["wave"], 2 * data[0]["wave"])
    assert data.drawn(0, 3)["drawn_for"] == (3, 0)
    assert "drawn_for" not in data[0]


def broken(folder: Path) -> list[dict[str, Any]]:
    """One sound row, then one row for each thing that can be wrong."""
    rows = [
        row(folder, "good", 1.0),
        {"id": "absent", "audio_path": "absent.wav", "duration": 1, "transcript": "a"},
        row(folder, "cut", 2.0),
        row(folder, "longer", 3.0, stated=2.0),
        row(folder, "long", 31.0),
        row(folder, "short", 0.05),
        row(folder, "mute", 1.0, text=""),
        row(folder, "many", 1.0, text="a" * (MAX_LABELS + 1)),
        row(folder, "last", 1.5),
    ]
    content = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[: len(content) // 2])
    return rows


# Trap 10.
@pytest.mark.parametrize("workers", [0, 3])
def test_the_check_before_training_puts_every_bad_row_into_the_ledger(tmp_path: Path, workers: int) -> None:
    data = dataset(tmp_path, broken(tmp_path), min_seconds=0.1, max_seconds=30.0)
    kept, ledger = validate(data, workers=workers)
    assert kept.tolist() == [0, 8]
    assert {drop.id: drop.reason for drop in ledger} == {
        "absent": "missing_audio",
        "cut": "unreadable_audio",
        "longer": "duration_mismatch",
        "long": "too_long",
        "short": "too_short",
        "mute": "empty_text",
        "many": "not_encodable",
    }
    assert all(f"{tmp_path / 'm.tsv'}:" in drop.detail for drop in ledger)
    assert [data.select(kept)[i]["id"] for i in range(2)] == ["good", "last"]


# Trap 6.
def test_rows_with_too_many_label_tokens_are_named_before_training(tmp_path: Path) -> None:
    rows = [
        row(tmp_path, "fits", 1.0, text="a" * MAX_LABELS),
        row(tmp_path, "many", 1.0, text="a" * (MAX_LABELS + 1)),
    ]
    data = dataset(tmp_path, rows)
    kept, ledger = validate(data)
    assert kept.tolist() == [0]
    assert [(drop.id, drop.reason) for drop in ledger] == [("many", "not_encodable")]
    assert ledger.drops[0].detail == f"{tmp_path / 'm.tsv'}:3: 449 label tokens, at most 448"
    assert validate(data, encodable=False)[0].tolist() == [0, 1]


class WithCheck:
    """An encoder that can judge labels without sound."""

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        raise AssertionError("not to be called by the check before training")

    def check(self, example: Example, seconds: float) -> None:
        if seconds < 1.5:
            raise ValueError(f"{seconds} s are too few frames")


def test_an_encoder_with_a_check_of_its_own_is_asked(tmp_path: Path) -> None:
    rows = load_manifest(manifest(tmp_path / "m.tsv", [row(tmp_path, "a", 1.0), row(tmp_path, "b", 2.0)]))
    kept, ledger = validate(SpeechDataset(rows, WithCheck(), RATE))
    assert kept.tolist() == [1]
    assert "1.0 s are too few frames" in ledger.drops[0].detail


def test_a_further_check_may_reject(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 1.0), row(tmp_path, "b", 1.0)])
    kept, ledger = validate(data, check=lambda example: "not this one" if example.id == "a" else None)
    assert kept.tolist() == [1]
    assert (ledger.drops[0].reason, ledger.drops[0].detail.split(": ", 1)[1]) == ("rejected", "not this one")


# Trap 11.
def test_long_clips_are_dropped_and_never_cut(tmp_path: Path) -> None:
    """A clip that is over the limit only by its header, or only by its row, has its whole text: both go."""
    rows = [
        row(tmp_path, "by_header", 30.3, stated=29.9),
        row(tmp_path, "by_row", 29.0, stated=31.0),
        row(tmp_path, "fits", 30.0),
    ]
    kept, ledger = validate(dataset(tmp_path, rows))
    assert kept.tolist() == [2]
    assert {drop.id: drop.reason for drop in ledger} == {"by_header": "too_long", "by_row": "too_long"}
    data = dataset(tmp_path, rows)
    assert len(data[0]["wave"]) == round(30.3 * RATE)


@pytest.mark.parametrize(
    ("real", "stated", "fits"), [(1.4, 1.0, True), (1.6, 1.0, False), (20.9, 20.0, True), (21.1, 20.0, False)]
)
def test_the_tolerance_is_half_a_second_or_a_twentieth(
    tmp_path: Path, real: float, stated: float, fits: bool
) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", real, stated=stated)])
    assert validate(data)[0].tolist() == ([0] if fits else [])


def test_segments_are_measured_by_their_times(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 100.0)
    times = [(0.0, 2.0), (98.0, 100.0), (99.0, 103.0)]
    rows = [
        {
            "id": f"s{i}",
            "audio_path": "a.wav",
            "duration": end - start,
            "start": start,
            "end": end,
            "transcript": "x",
        }
        for i, (start, end) in enumerate(times)
    ]
    data = dataset(tmp_path, rows)
    kept, ledger = validate(data)
    assert kept.tolist() == [0, 1]
    assert "past the end of the file" in ledger.drops[0].detail
    assert len(data[1]["wave"]) == 2 * RATE


# Trap 10.
def test_a_file_that_breaks_during_training_stops_it_by_name(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 1.0), row(tmp_path, "b", 1.0)])
    (tmp_path / "b.wav").unlink()
    with pytest.raises(DataError, match=rf"{tmp_path / 'm.tsv'}:3: utterance 'b': .*no such file"):
        data[1]
    sound(tmp_path / "b.wav", 5.0)
    with pytest.raises(DataError, match="the sound lasts 5"):
        data[1]
    assert issubclass(DataError, UserError)


# Trap 10.
def test_the_error_comes_through_a_worker(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 1.0)])
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match="utterance 'a'"):
        list(DataLoader(data, batch_size=1, num_workers=1, collate_fn=collate))


def test_spawned_workers_read_the_same(tmp_path: Path) -> None:
    data = dataset(tmp_path, [row(tmp_path, name, 1.0) for name in "abc"], augment=Louder())
    context = multiprocessing.get_context("spawn")
    loader = DataLoader(
        data, batch_size=2, num_workers=1, multiprocessing_context=context, collate_fn=collate
    )
    found = [features for batch in loader for features in batch]
    assert [features["id"] for features in found] == ["a", "b", "c"]
    np.testing.assert_array_equal(found[2]["wave"], data[2]["wave"])
    assert pickle.loads(pickle.dumps(data))[0]["id"] == "a"


def test_a_long_file_that_only_its_header_measures_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path, [row(tmp_path, "a", 2.0)])
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    assert validate(data)[0].tolist() == [0]


def test_a_split_that_can_all_be_used_is_not_copied(tmp_path: Path) -> None:
    """A million rows would be there twice."""
    rows = [row(tmp_path, "a", 1.0), row(tmp_path, "b", 2.0)]
    settings = SimpleNamespace(
        data=SimpleNamespace(min_seconds=0.0, max_dropped_share=0.5, keep_text_markers=()),
        audio=SimpleNamespace(max_length_seconds=30.0),
        dataloader=SimpleNamespace(num_workers=0),
    )
    architecture: Any = SimpleNamespace(encode=encode, train_encode=None, sample_rate=RATE)
    whole = load_manifest(manifest(tmp_path / "whole.tsv", rows))
    assert usable(settings, architecture, whole, "train")[0].manifest is whole  # type: ignore[arg-type]
    part = load_manifest(manifest(tmp_path / "part.tsv", [*rows, row(tmp_path, "c", 1.0, text="")]))
    chosen, ledger = usable(settings, architecture, part, "train")  # type: ignore[arg-type]
    assert chosen.manifest.ids == ["a", "b"] and len(ledger) == 1
