"""``timestamps_manifest.json``: written, read as a manifest, and refused with file, sample and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.base.errors import UserError
from training.data.example import Word
from training.data.manifest import load_manifest
from training.data.timestamps_manifest import FILE, write_timestamps

WORDS = [
    {"word": "Xin", "start": 0.12, "end": 0.4, "confidence": 0.9},
    {"word": "chào,", "start": 0.4, "end": 0.81, "confidence": 0.8},
]
SAMPLE: dict[str, Any] = {
    "id": "u1", "audio_path": "../clips/a.wav", "text": "Xin chào,", "duration": 1.5, "speaker": "an",
    "language": "vi", "words": WORDS, "wer": 0.0,
}  # fmt: skip
HEAD = {"model": "openai/whisper-small", "split": "train", "kept": 1, "dropped": 0}


def written(folder: Path, *samples: Any, **head: Any) -> Path:
    path = folder / FILE
    write_timestamps(path, {**HEAD, **head}, samples)
    return path


def test_what_is_written_is_read_as_examples(tmp_path: Path) -> None:
    stretch = {**SAMPLE, "id": "u2", "start": 2.0, "end": 3.5, "speaker": "bình"}
    path = written(tmp_path, SAMPLE, stretch)
    rows = load_manifest(path)
    assert [example.id for example in rows] == ["u1", "u2"]
    first, second = rows
    assert first.words == (Word(text="Xin", start=0.12, end=0.4), Word(text="chào,", start=0.4, end=0.81))
    assert first.texts == {"transcribe": "Xin chào,"}
    assert (first.duration, first.speaker, first.language) == (1.5, "an", "vi")
    assert first.audio.path == str(tmp_path / "../clips/a.wav")
    assert (second.audio.start, second.audio.end) == (2.0, 3.5)
    assert rows.column("wer") == ["0.0", "0.0"]
    assert second.source == f"{path}:2"


def test_the_file_is_the_guides(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path, SAMPLE).read_text(encoding="utf8"))
    assert content == {"version": 1, **HEAD, "samples": [SAMPLE]}
    assert json.loads(written(tmp_path).read_text(encoding="utf8"))["samples"] == []


def test_a_sample_is_a_line(tmp_path: Path) -> None:
    lines = written(tmp_path, SAMPLE, {**SAMPLE, "id": "u2"}).read_text(encoding="utf8").splitlines()
    assert [json.loads(line.strip().rstrip(","))["id"] for line in lines if '"id"' in line] == ["u1", "u2"]


@given(
    texts=st.lists(st.lists(st.text("abcđế'", min_size=1, max_size=6), min_size=1, max_size=5), max_size=4)
)
def test_any_words_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("words")
    samples = [
        {
            "id": f"u{row}",
            "audio_path": f"{row}.wav",
            "text": " ".join(words),
            "duration": 6.0,
            "words": [{"word": word, "start": n + 0.125, "end": n + 0.5} for n, word in enumerate(words)],
        }
        for row, words in enumerate(texts)
    ]
    if not samples:
        return
    found = load_manifest(written(folder, *samples))
    for example, words in zip(found, texts, strict=True):
        assert example.texts["transcribe"] == " ".join(words)
        assert example.words == tuple(
            Word(text=word, start=n + 0.125, end=n + 0.5) for n, word in enumerate(words)
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": None}, "text: no text"),
        ({"words": "Xin chào,"}, "words: a list is expected"),
        ({"words": [["Xin", 0.1, 0.2]]}, "words: 1: an object with word, start and end is expected"),
        (
            {"words": [{**WORDS[0], "end": "0.4"}, WORDS[1]]},
            "words: 1 ('Xin'): start and end must be seconds",
        ),
        ({"words": [{**WORDS[0], "end": 0.12}, WORDS[1]]}, "words: 1 ('Xin'): 0.12–0.12 s; it must"),
        ({"words": [WORDS[0], {**WORDS[1], "start": 0.05}]}, "words: 2 ('chào,'): 0.05–0.81 s; it must"),
        (
            {"words": [WORDS[0], {**WORDS[1], "end": 2.2}]},
            "0.4–2.2 s; it must begin at 0.12 s or later, end after that, and lie within the utterance (up to 2 s)",
        ),
        ({"words": WORDS[:1]}, "words: 1 that are not the 2 of the text"),
        ({"duration": float("nan")}, "duration: nan is no number of seconds"),
        ({"duration": True}, "duration: True is no number of seconds"),
    ],
)
def test_a_bad_sample_is_named_with_its_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / FILE
    path.write_text(json.dumps({"version": 1, "samples": [SAMPLE, {**SAMPLE, "id": "bad", **change}]}))
    with pytest.raises(UserError) as error:
        load_manifest(path)
    assert f"{path}: sample 2 ('bad'): " in str(error.value) and reason in str(error.value)


def test_samples_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(json.dumps({"version": 1, "samples": [7, {"id": "u", "text": "a"}]}))
    with pytest.raises(UserError) as error:
        load_manifest(path)
    assert str(error.value).splitlines() == [
        f"{path}: sample 1: an object is expected, this is int",
        f"{path}: sample 2 ('u'): lacks audio_path, duration, words",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged, not JSON"),
        ("[]", "no timestamps manifest"),
        ('{"samples": {}}', "no timestamps manifest"),
        ('{"version": 9, "samples": []}', "version 9; this Polyvox reads version 1"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_such_manifest(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / FILE
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=reason):
        load_manifest(path)


def test_two_samples_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r":2: id: 'u1' is the id of line 1 too"):
        load_manifest(written(tmp_path, SAMPLE, SAMPLE))


def test_the_writer_writes_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        written(tmp_path, {**SAMPLE, "wer": float("nan")})
    assert list(tmp_path.iterdir()) == []
