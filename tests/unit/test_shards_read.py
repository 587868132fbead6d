"""Folders of shards as a source: domains, metadata that lies, the index that is kept, workers."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from shard_assets import RATE, archive, folder, member, sample, sidecar, wav
from torch.utils.data import DataLoader

from training.base.errors import UserError
from training.data import audio, cached_table
from training.data.dataset import SpeechDataset, validate
from training.data.example import TRANSCRIBE, TRANSLATE, Example
from training.data.sources.shards import index as indices
from training.data.sources.shards.index import INDEX, estimate, read_index
from training.data.sources.shards.source import ShardSource, load_shards


def metadata(path: Path, total: int, shards: dict[str, int], name: str = "filename", **more: Any) -> None:
    content = {"total_samples": total, "shards": [{name: k, "samples": v} for k, v in shards.items()], **more}
    (path / "metadata.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_interface_of_a_manifest(tmp_path: Path) -> None:
    fields = {
        "translation": "x",
        "language": "ko",
        "speaker": "s1",
        "group": "g",
        "domain": "normal",
        "age": 9,
    }
    rows = [
        *sample("a", 1.0, words=[["text", 0.1, 0.4], ["a", 0.5, 0.9]], **fields),
        *sample("b", 0.5, id="u/b.wav", domain="dyslexic"),
    ]
    shard = archive(tmp_path / "train" / "shard_000000.tar", rows)
    source = load_shards(tmp_path / "train")
    first = source[0]
    assert (first.id, first.duration, first.language, first.speaker, first.group, first.domain) == (
        "a", 1.0, "ko", "s1", "g", "normal",
    )  # fmt: skip
    assert first.texts == {TRANSCRIBE: "text a", TRANSLATE: "x"}
    assert [word.text for word in first.words] == ["text", "a"]
    assert first.source == f"{shard}:1"
    assert source.ids == ["a", "u/b.wav"]
    np.testing.assert_array_equal(source.durations, np.array([1.0, 0.5], np.float32))
    assert source.column("age") == ["9", None]
    assert set(source.column_names) == {
        "id", "audio_path", "duration", "transcript", "translation", "language", "speaker", "group", "domain", "age", "words",
    }  # fmt: skip
    assert [text for _, _, text in source.texts()] == ["text a", "x", "text b"]
    assert [source.seconds(i) for i in range(2)] == [1.0, 0.5]
    expected, _ = soundfile.read(io.BytesIO(wav(0.5, 1)), dtype="float32")
    np.testing.assert_array_equal(source.waveform(1, RATE), expected)
    picked = source.select([1])
    assert isinstance(picked, ShardSource) and picked.ids == ["u/b.wav"]
    np.testing.assert_array_equal(picked.waveform(0, RATE), expected)
    assert source.sha256() == load_shards(tmp_path / "train").sha256() != picked.sha256()


def encode(example: Example, waveform: np.ndarray) -> dict[str, Any]:
    return {"id": example.id, "samples": len(waveform)}


def same(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return features


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_it_is_sent_to_workers_and_read_there(tmp_path: Path, context: str) -> None:
    source = load_shards(folder(tmp_path / "train", {"shard_000000": 4, "shard_000001": 3}, domain="a"))
    source.waveform(0, RATE)  # this process has an archive open
    data = SpeechDataset(source, encode, RATE)
    loader = DataLoader(data, batch_size=2, num_workers=2, collate_fn=same, multiprocessing_context=context)
    found = {one["id"]: one["samples"] for batch in loader for one in batch}
    assert found == {example.id: round(example.duration * RATE) for example in source}
    assert pickle.loads(pickle.dumps(source)).sha256() == source.sha256()


def test_domains_come_from_the_json_then_the_map_then_the_metadata(tmp_path: Path) -> None:
    train = tmp_path / "train"
    archive(
        train / "shard_000000.tar", [*sample("a", domain="dyslexic"), *sample("b"), *sample("c", domain=" ")]
    )
    normal = folder(tmp_path / "train_normal", {"shard_000000": 2})
    metadata(normal, 2, {"shard_000000.tar": 2}, domain="normal")
    both = [train, normal]
    assert load_shards(both, default_domain="x").column("domain") == [
        "dyslexic",
        "x",
        "x",
        "normal",
        "normal",
    ]
    mapped = load_shards(both, domains={"train": "slow", "train_normal": "typical"})
    assert mapped.column("domain") == ["dyslexic", "slow", "slow", "typical", "typical"]
    longer = {"train": "x", f"{tmp_path.name}/train": "y", "train_normal": "n"}
    assert load_shards(both, domains=longer).column("domain")[:2] == ["dyslexic", "y"]


def test_a_sample_without_a_domain_is_an_error_or_counted(tmp_path: Path) -> None:
    """The folder's name says "normal", and is not listened to."""
    path = folder(tmp_path / "val_normal", {"shard_000000": 3})
    with pytest.raises(
        UserError, match=r"val_normal/shard_000000.tar/shard_000000_000: .*no domain, nor have 2 others"
    ):
        load_shards(path)
    source = load_shards(path, default_domain="typical")
    assert source.column("domain") == ["typical"] * 3
    assert "3 samples have no domain and get data.shards.default_domain, 'typical'" in source.notes


@pytest.mark.parametrize("name", ["filename", "shard_filename"])
def test_false_metadata_is_reported_and_the_shards_are_believed(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 4, "shard_000001": 5}, domain="a")
    metadata(path, 10, {"shard_000000.tar": 4, "shard_000001.tar": 6, "../shard_9.tar": 1}, name)
    source = load_shards(path)
    assert len(source) == 9
    assert source.notes == (
        f"{path}/metadata.json says 10 samples, the shards hold 9",
        f"{path}/metadata.json says 6 samples in shard_000001.tar, it holds 5",
        f"{path}/metadata.json names ../shard_9.tar, which is not there",
    )
    metadata(path, 9, {"shard_000000.tar": 4, "shard_000001.tar": 5}, name)
    assert load_shards(path).notes == ()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "is missing"), ("{", "cannot be read"), ("[]", "holds no JSON object")]
)
def test_metadata_that_is_not_there_or_not_json(tmp_path: Path, content: str | None, said: str) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 2}, domain="a")
    if content is not None:
        (path / "metadata.json").write_text(content)
    (note,) = load_shards(path).notes
    assert said in note and "2 samples counted in 1 shards" in note


def test_an_estimate_opens_no_shard(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"shard_{i:06}.tar").write_bytes(b"no archive")
    assert estimate(tmp_path, 1000) == 3000
    metadata(tmp_path, 2517, {})
    assert estimate(tmp_path, 1000) == 2517


def test_what_is_refused_counts_against_the_share_that_may_be_dropped(tmp_path: Path) -> None:
    rows = [*sample("a", domain="n"), member("b.wav", wav()), *sample("c", domain="n")]
    archive(tmp_path / "shard_000000.tar", rows)
    source = load_shards(tmp_path)
    assert [(drop.id, drop.reason) for drop in source.refused] == [("shard_000000.tar/b", "empty_text")]
    assert not len(source.select([0]).refused)
    archive(tmp_path / "shard_000000.tar", [member("b.wav", wav())])
    with pytest.raises(UserError, match=r"no sample can be used\n.*\nempty_text"):
        load_shards(tmp_path)


def test_ids_that_repeat(tmp_path: Path) -> None:
    """Within a folder the second is refused; folders that count alike are told apart by their names."""
    archive(tmp_path / "train" / "a.tar", [*sample("1", domain="x"), *sample("2", domain="x")])
    archive(tmp_path / "train" / "b.tar", [*sample("2", domain="x"), *sample("1", id="other", domain="x")])
    archive(tmp_path / "more" / "a.tar", sample("1", domain="y"))
    source = load_shards(tmp_path / "train")
    assert source.ids == ["1", "2", "other"]
    assert [(d.id, d.reason) for d in source.refused] == [("b.tar/2", "duplicate_id")]
    both = load_shards([tmp_path / "train", tmp_path / "more"])
    assert both.ids == ["train/1", "train/2", "train/other", "more/1"]
    with pytest.raises(UserError, match="named twice"):
        load_shards([tmp_path / "train", tmp_path / "more" / ".." / "train"])


def test_fields_under_other_names(tmp_path: Path) -> None:
    rows = [
        member("a.wav", wav()),
        member("a.json", sidecar(text="hello", group_name="g", seconds=0.5, domain="n")),
    ]
    archive(tmp_path / "s.tar", rows)
    source = load_shards(
        tmp_path, columns={"transcript": "text", "duration": "seconds", "group": "group_name"}
    )
    assert source[0].texts == {TRANSCRIBE: "hello"} and source[0].group == "g"
    with pytest.raises(UserError, match=r"if 'text' is the transcript: data\.columns\.transcript=text"):
        load_shards(tmp_path)


def test_the_index_is_kept_and_read_only_as_long_as_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 3}, domain="a")
    archive(path / "shard_000001.tar", [member("x.wav", wav())])
    first = read_index(path)
    assert (path / INDEX).is_file()
    monkeypatch.setattr(indices, "read_shard", lambda *_: pytest.fail("read anew"))
    again = read_index(path)
    assert again.table.equals(first.table) and again.refused == first.refused and len(again.refused) == 1
    monkeypatch.undo()
    folder(path, {"shard_000001": 4}, domain="b")
    assert len(read_index(path).table) == 7
    os.utime(path / "shard_000001.tar", (1, 1))
    monkeypatch.setattr(indices, "read_shard", lambda *_: (_ for _ in ()).throw(RuntimeError("read anew")))
    with pytest.raises(RuntimeError, match="read anew"):
        read_index(path)


@pytest.mark.parametrize("content", [b"", b"ARROW1 no more", b"{}"])
def test_a_broken_index_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 3}, domain="a")
    (path / INDEX).write_bytes(content)
    assert len(load_shards(path)) == 3
    assert (path / INDEX).read_bytes()[:6] == b"ARROW1"


def test_without_the_right_to_write_the_index_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 3}, domain="a")

    def refused(*_: Any) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(cached_table, "atomic_bytes", refused)
    assert len(load_shards(path)) == 3
    assert sorted(one.name for one in path.iterdir()) == ["shard_000000.tar"]


# Trap 10.
def test_a_sound_that_cannot_be_read_goes_to_the_ledger(tmp_path: Path) -> None:
    rows = [
        *sample("a", domain="n"),
        member("b.flac", b"nothing"),
        member("b.json", sidecar(transcript="b", duration=1, domain="n")),
    ]
    path = archive(tmp_path / "s.tar", [*rows, *sample("c", 0.5, domain="n")])
    source = load_shards(tmp_path)
    kept, ledger = validate(SpeechDataset(source, encode, RATE), encodable=False)
    assert kept.tolist() == [0, 2]
    assert [(drop.id, drop.reason) for drop in ledger] == [("b", "unreadable_audio")]
    with pytest.raises(audio.AudioError, match=r"s\.tar/b\.flac: cannot be decoded"):
        source.waveform(1, RATE)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(audio.AudioError, match=r"c\.wav: truncated: 0 of its 16044 bytes are in the shard"):
        source.waveform(2, RATE)


def test_a_shard_that_is_gone_is_missing_audio(tmp_path: Path) -> None:
    source = load_shards(folder(tmp_path, {"shard_000000": 1}, domain="a"))
    (tmp_path / "shard_000000.tar").unlink()
    _, ledger = validate(SpeechDataset(source, encode, RATE), encodable=False)
    assert [drop.reason for drop in ledger] == ["missing_audio"]


def test_folders_that_hold_no_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of shards"):
        load_shards(tmp_path / "gone")
    folder(tmp_path / "root" / "train", {"shard_000000": 1})
    with pytest.raises(UserError, match=r"holds no shards \(\*.tar\); its folders train do"):
        load_shards(tmp_path / "root")
