"""The LibriSpeech layout as a source: rows, what is refused, what is read once."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from librispeech_files import TEXTS, tree
from speech_files import sound

from training.base.errors import UserError
from training.data import audio
from training.data.sources import librispeech
from training.data.sources.librispeech import load_librispeech
from training.data.sources.shards.write import write_shards

IDS = [
    "174-50561-0000",
    "174-50561-0001",
    "84-121123-0000",
    "84-121123-0001",
    "84-121123-0002",
    "84-121550-0000",
]


def test_the_rows(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    rows = load_librispeech(tmp_path, ["dev-clean"])
    assert rows.ids == IDS
    assert rows.column("transcript") == [text.lower() for text in (*TEXTS[1:], *TEXTS, TEXTS[0])]
    assert rows.column("speaker") == ["174"] * 2 + ["84"] * 4
    assert rows.column("group") == ["174-50561"] * 2 + ["84-121123"] * 3 + ["84-121550"]
    assert rows.column("language") == ["en"] * 6
    np.testing.assert_allclose(rows.durations, [0.5, 0.6, 0.5, 0.6, 0.7, 0.5], atol=1e-6)
    one = rows[3]
    assert (one.id, one.texts) == (IDS[3], {"transcribe": "nor is mister quilter's manner"})
    assert Path(one.audio.path) == folder / "84/121123/84-121123-0001.flac"
    assert one.source == f"{folder / '84/121123/84-121123.trans.txt'}:2"
    assert rows.seconds(3) == pytest.approx(0.6)
    assert len(rows.waveform(3, 16_000)) == 9600
    assert (len(rows.refused), rows.path) == (0, folder)


def test_the_root_may_be_the_folder_itself_and_splits_may_be_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    tree(tmp_path, "train-clean-100", {"19/198": TEXTS})
    both = load_librispeech(tmp_path / "LibriSpeech", ["train-clean-100", "dev-clean"])
    assert both.ids == [*(f"19-198-000{i}" for i in range(3)), *IDS]
    assert Path(both[0].audio.path).is_file()
    monkeypatch.chdir(tmp_path / "LibriSpeech")
    assert load_librispeech(Path(), ["dev-clean"]).ids == IDS


def test_selections_copies_and_fingerprints(tmp_path: Path) -> None:
    tree(tmp_path)
    rows = load_librispeech(tmp_path, ["dev-clean"])
    some = rows.select([4, 0])
    assert some.ids == [IDS[4], IDS[0]] and some[0].source == rows[4].source
    assert pickle.loads(pickle.dumps(rows))[2] == rows[2]
    tree(tmp_path / "elsewhere")
    assert load_librispeech(tmp_path / "elsewhere", ["dev-clean"]).sha256() == rows.sha256() != some.sha256()


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    chapter = folder / "84/121123"
    (chapter / "84-121123-0000.flac").unlink()
    whole = (chapter / "84-121123-0001.flac").read_bytes()
    (chapter / "84-121123-0001.flac").write_bytes(whole[: len(whole) // 2])
    sound(chapter / "84-121123-0009.flac", 0.3)
    lines = (chapter / "84-121123.trans.txt").read_text()
    more = "84-121123-0002 AGAIN\n\n84-121123-0003\n../../../x SECRET\n"
    sound(chapter / "84-121123-0003.flac", 0.3)
    (chapter / "84-121123.trans.txt").write_text(lines + more)
    rows = load_librispeech(tmp_path, ["dev-clean"])
    assert rows.ids == [IDS[0], IDS[1], IDS[4], IDS[5]]
    at = "dev-clean/84/121123/84-121123"
    assert [(drop.id, drop.reason) for drop in rows.refused] == [
        ("84-121123-0000", "missing_audio"),
        ("84-121123-0002", "duplicate_id"),
        ("84-121123-0003", "empty_transcript"),
        ("../../../x", "missing_audio"),
        ("84-121123-0009", "no_transcript"),
        ("84-121123-0001", "unreadable_audio"),
    ]
    details = [drop.detail for drop in rows.refused]
    assert details[0] == f"{at}.trans.txt:1: {at}-0000.flac: no such file"
    assert details[2] == f"{at}.trans.txt:6: no words behind the id"
    assert details[5].startswith(f"{at}.trans.txt:2: {at}-0001.flac: ")


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path)
    probed: list[str] = []
    real = audio.probe
    monkeypatch.setattr(audio, "probe", lambda path: probed.append(Path(path).name) or real(path))
    first = load_librispeech(tmp_path, ["dev-clean"])
    assert len(probed) == 6
    assert load_librispeech(tmp_path, ["dev-clean"]).table.equals(first.table)
    assert len(probed) == 6
    sound(folder / "84/121550/84-121550-0000.flac", 1.5, 16_000)
    assert load_librispeech(tmp_path, ["dev-clean"]).durations[-1] == pytest.approx(1.5)
    assert len(probed) == 12


def test_a_folder_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.data import cached_table

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    tree(tmp_path)
    monkeypatch.setattr(cached_table, "atomic_bytes", refuse)
    assert load_librispeech(tmp_path, ["dev-clean"]).ids == IDS
    assert not list((tmp_path / "LibriSpeech").glob(".*"))


def test_the_layout_that_the_guide_warns_of(tmp_path: Path) -> None:
    shutil.move(tree(tmp_path / "a"), tmp_path / "dev-clean")
    with pytest.raises(UserError) as caught:
        load_librispeech(tmp_path, ["dev-clean"])
    inside = tmp_path / "LibriSpeech"
    assert str(caught.value) == (
        f"{tmp_path}: holds dev-clean without the folder LibriSpeech around them; expected is {inside / 'dev-clean'}: "
        f"make the folder {inside} and move them there"
    )


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(UserError) as caught:
        load_librispeech(tmp_path, ["test-clean"])
    assert str(caught.value) == (
        f"{tmp_path / 'LibriSpeech/test-clean'}: no such folder (splits that are there: dev-clean); get it with "
        f"polyvox download librispeech --output {tmp_path} --splits test-clean, or name another split"
    )
    with pytest.raises(UserError, match=r"splits that are there: none"):
        load_librispeech(tmp_path / "nowhere", ["test-clean"])


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    folder = tree(tmp_path, chapters={"84/1": TEXTS[:1]})
    (folder / "84/1/84-1-0000.flac").unlink()
    with pytest.raises(UserError, match=r"dev-clean: no utterance can be used\n(.|\n)*missing_audio"):
        load_librispeech(tmp_path, ["dev-clean"])
    (tmp_path / "LibriSpeech" / "test-clean").mkdir()
    with pytest.raises(UserError, match="test-clean: no utterance can be used"):
        load_librispeech(tmp_path, ["test-clean"])


def test_transcripts_that_are_not_utf8(tmp_path: Path) -> None:
    file = tree(tmp_path) / "84/121123/84-121123.trans.txt"
    file.write_bytes(file.read_bytes() + b"84-121123-0004 CAF\xc9\n")
    with pytest.raises(UserError, match=r"84-121123.trans.txt:4: not UTF-8"):
        load_librispeech(tmp_path, ["dev-clean"])


def test_it_is_a_source_like_any_other(tmp_path: Path) -> None:
    """Shards are written from whatever has a manifest's interface."""
    tree(tmp_path)
    written = write_shards(
        load_librispeech(tmp_path, ["dev-clean"]), tmp_path / "shards", samples_per_shard=4
    )
    assert (written.total.samples, len(written.shards)) == (6, 2)


def test_the_reader_is_named_in_no_index_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    load_librispeech(tmp_path, ["dev-clean"])
    monkeypatch.setattr(librispeech, "_VERSION", 2)
    monkeypatch.setattr(librispeech, "LANGUAGE", "de")
    assert set(load_librispeech(tmp_path, ["dev-clean"]).column("language")) == {"de"}
