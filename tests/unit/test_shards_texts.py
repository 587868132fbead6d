"""Where the text of a shard's samples is looked for, and what is said where it lies elsewhere or is no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shard_assets import archive, folder, member, sample, sidecar, wav

from training.base.errors import UserError
from training.cli import shards as command
from training.data.ledger import DropLedger
from training.data.sources.shards import samples
from training.data.sources.shards.index import read_index
from training.data.sources.shards.samples import read_shard
from training.data.sources.shards.source import load_shards


@pytest.mark.parametrize("field", ["text", "sentence", "transcription", "Transcript", "transcrpit"])
def test_a_transcript_under_another_name_is_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    path = folder(tmp_path / "train", {"s": 3}, transcript=None, speaker_age=9, **{field: "hello"})
    expected = (
        rf"no JSON has a field 'transcript' \(there are: duration, speaker_age, {field}\); if '{field}' is the "
        rf"transcript: data\.columns\.transcript={field}"
    )
    for _ in range(2):  # the second time from the index that is kept
        with pytest.raises(UserError, match=expected):
            load_shards(path, default_domain="x")
    assert command.main(["stats", str(path)]) == 0
    assert f"data.columns.transcript={field}" in capsys.readouterr().out
    assert len(load_shards(path, default_domain="x", columns={"transcript": field})) == 3
    assert command.main(["stats", str(path), "--column", f"transcript={field}"]) == 0
    assert "train: 3 samples" in capsys.readouterr().out


def test_fields_that_are_like_no_transcript_are_only_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", {"s": 1}, transcript=None, pitch=3)
    with pytest.raises(UserError, match=r"there are: duration, pitch\)$"):
        load_shards(path, default_domain="x")


def test_one_folder_of_two_without_transcripts_is_told_and_counted(tmp_path: Path) -> None:
    good = folder(tmp_path / "a", {"s": 2})
    bad = folder(tmp_path / "b", {"t": 3}, transcript=None, text="x")
    source = load_shards([good, bad], default_domain="x")
    assert len(source) == 2 and source.refused.counts() == {"empty_text": 3}
    assert any(f"{bad}: no JSON has a field 'transcript'" in note for note in source.notes)


def test_some_samples_without_a_text_are_no_matter_of_the_name(tmp_path: Path) -> None:
    archive(tmp_path / "s.tar", [*sample("a"), *sample("b", transcript=None, text="x")])
    assert read_index(tmp_path).notes == ()
    archive(tmp_path / "s.tar", [*sample("a", transcript=" "), *sample("b", transcript=None, text="x")])
    assert read_index(tmp_path).notes == ()


@pytest.mark.parametrize("suffix", ["text", "cls", "lab", "trn", "TEXT"])
def test_texts_in_members_that_are_not_read(tmp_path: Path, suffix: str) -> None:
    rows = [
        one for key in "abc" for one in (member(f"{key}.wav", wav()), member(f"{key}.{suffix}", b"hello"))
    ]
    archive(tmp_path / "s.tar", rows)
    kind = suffix.lower()
    expected = (
        rf"no \.json and no \.txt \(its members are wav, {kind}\)[\s\S]*no sample has a \.json or a \.txt, from which a "
        rf"transcript is read; there are \.{kind}: where one of them is the transcript, name such members \.txt"
    )
    with pytest.raises(UserError, match=expected):
        load_shards(tmp_path, default_domain="x")


def refused(tmp_path: Path, **fields: Any) -> DropLedger:
    path = archive(
        tmp_path / "s.tar", [*sample("a"), member("b.x.wav", wav()), member("b.x.json", sidecar(**fields))]
    )
    table, ledger = read_shard(path)
    assert table.column("id").to_pylist() == ["a"]
    return ledger


STRUCTURED: list[dict[str, Any]] = [
    {"transcript": ["a", "b"]},
    {"transcript": {"text": "a"}},
    {"transcript": True},
    {"transcript": "a", "translation": ["b"]},
    {"transcript": "a", "speaker": {"id": 1}},
    {"transcript": "a", "language": ["en"]},
    {"transcript": "a", "duration": True},
]


@pytest.mark.parametrize("fields", STRUCTURED)
def test_a_structure_in_place_of_a_text_is_refused_by_shard_and_member(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    (drop,) = refused(tmp_path, **fields)
    assert (drop.id, drop.reason) == ("s.tar/b", "bad_sidecar")
    assert drop.detail.startswith("b.x.json: ") and list(fields)[-1] in drop.detail


def test_words_and_fields_that_are_not_ours_may_be_structures(tmp_path: Path) -> None:
    fields = {
        "words": [["text", 0.0, 0.2], ["a", 0.2, 0.4]],
        "word_languages": ["en", "en"],
        "meta": {"a": [1]},
        "noisy": True,
    }
    table, ledger = read_shard(archive(tmp_path / "s.tar", sample("a", **fields)))
    assert not len(ledger)
    assert table.column("word_languages").to_pylist() == ["en en"]
    assert table.column("meta").to_pylist() == ['{"a": [1]}']


def test_cells_are_judged_by_our_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``data.columns`` maps names first: a list under ``text`` is a list under ``transcript``."""
    seen: list[str] = []

    def cell(value: Any, name: str) -> str:
        seen.append(name)
        if isinstance(value, list) and name == "transcript":
            raise ValueError("transcript: a list")
        return str(value)

    monkeypatch.setattr(samples, "json_cell", cell)
    path = archive(
        tmp_path / "s.tar", [member("b.wav", wav()), member("b.json", sidecar(text=["x"], spans=[1]))]
    )
    _, ledger = read_shard(path, {"transcript": "text", "words": "spans"})
    assert [drop.detail for drop in ledger] == ["b.json: transcript: a list"]
    assert seen == ["transcript"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.x.json", b"{"),
        ("b.x.txt", b"\xff"),
        ("b.x.json", b"[1]"),
        ("b.x.json", b'{"transcript": "x", "transcript": "y"}'),
        ("b.x.json", b'{"transcript": "\\ud800"}'),
        ("b.x.json", b'{"transcript": "x", "meta": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = archive(tmp_path / "s.tar", [*sample("a"), member("b.x.wav", wav()), member(name, content)])
    (drop,) = read_shard(path)[1]
    assert (drop.id, drop.reason) == ("s.tar/b", "bad_sidecar") and drop.detail.startswith(f"{name}: ")


@pytest.mark.parametrize(
    "fields", [{"transcript": "raw", "text": "clean"}, {"text": "clean", "transcript": "raw"}]
)
def test_a_named_field_goes_before_one_that_has_our_name(tmp_path: Path, fields: dict[str, str]) -> None:
    """As in tables: ``data.columns.transcript=text`` means the field ``text``, whatever its place in the JSON."""
    content = json.dumps({"duration": 0.5, **fields}).encode()
    path = archive(tmp_path / "s.tar", [member("a.wav", wav()), member("a.json", content)])
    table, _ = read_shard(path, {"transcript": "text"})
    assert table.column("transcript").to_pylist() == ["clean"]


def test_texts_that_stand_for_no_value_are_told_by_write_and_stats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(
        f"{name}.wav\t0.5\t{text}\n" for name, text in (("a", "hello"), ("b", "nan"), ("c", "N/A"))
    )
    (tmp_path / "m.tsv").write_text(f"audio_path\tduration\ttranscript\n{rows}")
    for name in "abc":
        (tmp_path / f"{name}.wav").write_bytes(wav())
    told = "the transcript of 2 utterances is only 'nan' or the like"
    assert (
        command.main(["write", "--manifest", str(tmp_path / "m.tsv"), "--output", str(tmp_path / "out")]) == 0
    )
    assert told in capsys.readouterr().err
    assert command.main(["stats", str(tmp_path / "out")]) == 0
    assert told in capsys.readouterr().out
