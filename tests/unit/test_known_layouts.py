"""Tables of other projects are read as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from speech_files import sound

from training.base.errors import UserError
from training.cli import preprocess
from training.data.example import AudioRef
from training.data.manifest import load_manifest


def test_nemo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "a.wav", 4.0)
    lines = [
        {"audio_filepath": "a.wav", "duration": 1.5, "text": "one", "offset": 0.5, "lang": "en"},
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "two", "offset": 2.5, "lang": "en"},
    ]
    (tmp_path / "m.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(load_manifest(tmp_path / "m.json", check_files=True))
    assert [one.texts["transcribe"] for one in found] == ["one", "two"]
    assert [(one.audio, one.duration, one.language) for one in found] == [
        (AudioRef(path=str(tmp_path / "a.wav"), start=0.5, end=2.0), 1.5, "en"),
        (AudioRef(path=str(tmp_path / "a.wav"), start=2.5, end=3.5), 1.0, "en"),
    ]
    assert "m.json: read as a table of NeMo" in capsys.readouterr().err


def test_common_voice(tmp_path: Path) -> None:
    sound(tmp_path / "clips/cv_1.wav", 2.0)
    (tmp_path / "train.tsv").write_text(
        "client_id\tpath\tsentence\tup_votes\tlocale\nabc\tcv_1.wav\tXin chào\t2\tvi\n", encoding="utf8"
    )
    output = tmp_path / "out/clean.tsv"
    assert preprocess.main(["--input", str(tmp_path / "train.tsv"), "--output", str(output)]) == 0
    (found,) = load_manifest(output, check_files=True)
    assert (found.texts["transcribe"], found.speaker, found.language) == ("Xin chào", "abc", "vi")
    assert found.duration == pytest.approx(2.0)
    assert Path(found.audio.path).resolve() == (tmp_path / "clips/cv_1.wav").resolve()


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf8")
    return folder


def test_kaldi(tmp_path: Path) -> None:
    sound(tmp_path / "talk.wav", 6.0)
    folder = kaldi(
        tmp_path / "train",
        text="u1 xin chào\nu2 các bạn\n",
        wav_scp=f"talk {tmp_path / 'talk.wav'}\n",
        segments="u1 talk 0.5 2.0\nu2 talk 2.5 4.5\n",
        utt2spk="u1 anna\nu2 ben\n",
    )
    rows = load_manifest(folder, check_files=True)
    assert [(one.id, one.speaker, one.group, one.texts["transcribe"]) for one in rows] == [
        ("u1", "anna", "talk", "xin chào"),
        ("u2", "ben", "talk", "các bạn"),
    ]
    assert [(one.audio.start, one.audio.end, one.duration) for one in rows] == [
        (0.5, 2.0, 1.5),
        (2.5, 4.5, 2.0),
    ]
    output = tmp_path / "clean.tsv"
    assert preprocess.main(["--input", str(folder), "--output", str(output)]) == 0
    assert len(load_manifest(output, check_files=True)) == 2


def test_a_command_in_kaldis_folder_is_never_run(tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "a", text="u1 xin chào\n", wav_scp=f"u1 touch {tmp_path / 'ran'} |\n")
    with pytest.raises(UserError, match=r"wav\.scp:1: is a command, and commands in data are not run"):
        load_manifest(folder)
    assert not (tmp_path / "ran").exists()


def test_an_utterance_without_sound_is_named(tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "a", text="u1 xin\nu2 chào\n", wav_scp="u1 a.wav\n")
    with pytest.raises(UserError, match=r"text:2: u2: is not in .*wav\.scp"):
        load_manifest(folder, need_duration=False)


def test_tables_with_our_columns_or_a_mapping_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.tsv").write_text(
        "client_id\tpath\tsentence\tduration\nabc\ta.wav\tXin chào\t2\n", encoding="utf8"
    )
    rows = load_manifest(tmp_path / "m.tsv", columns={"audio_path": "path", "transcript": "sentence"})
    assert (rows[0].texts["transcribe"], rows[0].speaker) == ("Xin chào", None)
    assert capsys.readouterr().err == ""
