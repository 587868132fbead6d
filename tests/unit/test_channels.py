"""Several channels made one: their mean, the louder one where they cancel each other, or the one that is asked for."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_files import manifest
from tone_recogniser import RATE, WORDS, recogniser, speak

from training.base.errors import UserError
from training.cli import transcribe
from training.config.load import config_from
from training.data.audio import (
    AudioError,
    load_audio,
    load_bytes,
    probe,
    segment_duration,
    stream,
    stream_mono,
    taken_channel,
)
from training.data.example import AudioRef
from training.data.levels import measure
from training.data.manifest import load_manifest
from training.data.prepare.clean import preprocess
from training.data.sound.channel import parse_channel
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards
from training.engine.run import open_split
from training.registry import sound as registry_sound
from training.registry.importing import Conversion
from training.registry.prepare import Settings, prepare
from training.registry.source import load_version

SIDES = ("left", "right")


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def saved(path: Path, *channels: np.ndarray) -> AudioRef:
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype="FLOAT")
    return AudioRef(path=str(path))


def test_channels_that_cancel_each_other_give_the_louder_one(tmp_path: Path) -> None:
    x = tone(1.0)
    for other, taken in [(-x, 0), (-1.05 * x, 1), (-0.95 * x, 0)]:
        ref = saved(tmp_path / "a.wav", x, other)
        louder = (x, other)[taken]
        np.testing.assert_array_equal(load_audio(ref, RATE), louder)
        np.testing.assert_array_equal(load_bytes(Path(ref.path).read_bytes(), ref, RATE), louder)
        assert taken_channel(ref) == taken


def test_the_mean_stays_where_it_is_less_than_20_db_below(tmp_path: Path) -> None:
    x, y, silence = tone(1.0), tone(1.0, 700), np.zeros(RATE, np.float32)
    for channels in [
        (x, x),
        (x, y),
        (x, silence),
        (x, -0.7 * x),
        (x, silence, silence, silence),
        (silence, silence),
    ]:
        ref = saved(tmp_path / "a.wav", *channels)
        np.testing.assert_array_equal(load_audio(ref, RATE), np.stack(channels, axis=1).mean(axis=1))
        assert taken_channel(ref) is None


def test_the_choice_is_that_of_the_whole_stretch_and_not_of_a_block(tmp_path: Path) -> None:
    """The first second cancels, the two others do not."""
    x = tone(3.0)
    y = x.copy()
    y[:RATE] *= -1
    ref = saved(tmp_path / "a.wav", x, y)
    whole = load_audio(ref, RATE)
    np.testing.assert_array_equal(whole, (x + y) / 2)
    for block in (0.3, 1.0, 10.0):
        np.testing.assert_array_equal(np.concatenate([b for b, _ in stream_mono(ref, block)]), whole)
    first = AudioRef(path=ref.path, end=1.0)
    np.testing.assert_array_equal(load_audio(first, RATE), x[:RATE])
    np.testing.assert_array_equal(np.concatenate([b for b, _ in stream_mono(first, 0.3)]), x[:RATE])


def test_a_level_is_that_of_what_is_taken(tmp_path: Path) -> None:
    x = tone(1.0)
    level = measure(saved(tmp_path / "a.wav", x, -1.04 * x))
    alone = measure(saved(tmp_path / "b.wav", 1.04 * x))
    assert (level.channel, alone.channel) == (1, None)
    assert (level.rms_db, level.loudest_db) == (pytest.approx(alone.rms_db), pytest.approx(alone.loudest_db))
    assert measure(saved(tmp_path / "c.wav", x, x)).channel is None


def test_a_named_channel_is_taken_as_it_is(tmp_path: Path) -> None:
    x, y = tone(2.0), tone(2.0, 700)
    path = saved(tmp_path / "call.wav", x, y).path
    for number, wanted in enumerate((x, y)):
        ref = AudioRef(path=path, start=0.5, end=1.5, channel=number)
        np.testing.assert_array_equal(load_audio(ref, RATE), wanted[RATE // 2 : 3 * RATE // 2])
        assert [block.shape[1] for block, _ in stream(ref, 0.4)] == [1, 1, 1]
    with pytest.raises(AudioError, match=r"channel 2 is asked for \(counted from 0\), it has 2"):
        load_audio(AudioRef(path=path, channel=2))


@pytest.mark.parametrize(
    ("cell", "number"), [("0", 0), (" 1 ", 1), ("Left", 0), ("right", 1), ("", None), (None, None)]
)
def test_a_channel_is_a_number_or_a_side(cell: str | None, number: int | None) -> None:
    assert parse_channel(cell) == number


@pytest.mark.parametrize("cell", ["-1", "1.5", "both", "², "])
def test_anything_else_is_no_channel(cell: str) -> None:
    with pytest.raises(ValueError, match="neither a number from 0 nor left or right"):
        parse_channel(cell)


def call(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """A telephone call: one speaker on each side."""
    x, y = tone(2.0), tone(2.0, 700)
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / "call.wav", np.stack([x, y], axis=1), RATE)
    rows = [
        {"audio_path": "call.wav", "duration": "2.0", "transcript": f"the {side} side", "channel": side}
        for side in SIDES
    ]
    return rows, x, y


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_a_column_names_the_channel_of_each_row(tmp_path: Path, suffix: str) -> None:
    rows, x, y = call(tmp_path)
    found = load_manifest(manifest(tmp_path / f"rows.{suffix}", rows))
    assert [example.audio.channel for example in found] == [0, 1]
    assert found.ids == ["call.wav#0", "call.wav#1"]  # one file, two utterances
    for row, wanted in enumerate((x, y)):
        np.testing.assert_allclose(found.waveform(row, RATE), wanted, atol=1e-4)


def test_a_cell_that_is_no_channel_is_named_with_its_line(tmp_path: Path) -> None:
    rows, _, _ = call(tmp_path)
    rows[1]["channel"] = "both"
    with pytest.raises(
        UserError, match=r"rows\.tsv:3: channel: 'both' is neither a number from 0 nor left or right"
    ):
        load_manifest(manifest(tmp_path / "rows.tsv", rows))


def test_a_column_that_names_no_channel_at_all_means_something_else(tmp_path: Path) -> None:
    rows, _, _ = call(tmp_path)
    rows = [{**row, "channel": "Evening News", "id": str(n)} for n, row in enumerate(rows)]
    found = load_manifest(manifest(tmp_path / "rows.tsv", rows))
    assert [example.audio.channel for example in found] == [None, None]
    assert found.column("channel") == ["Evening News"] * 2


def test_a_key_names_the_channel_of_rows_that_name_none(tmp_path: Path) -> None:
    rows, _, y = call(tmp_path)
    found = load_manifest(manifest(tmp_path / "rows.tsv", [rows[0], {**rows[1], "channel": "", "id": "b"}]))
    assert found[1].audio.channel is None
    found.take_channel(1)
    assert [example.audio.channel for example in found] == [0, 1]
    np.testing.assert_allclose(found.waveform(1, RATE), y, atol=1e-4)


@pytest.mark.parametrize(("value", "expected"), [("right", [0, 1]), (1, [0, 1]), (None, [0, None])])
def test_the_key_audio_channel_serves_every_source(
    tmp_path: Path, value: Any, expected: list[int | None]
) -> None:
    rows, _, _ = call(tmp_path)
    path = manifest(tmp_path / "rows.tsv", [rows[0], {**rows[1], "channel": "", "id": "b"}])
    data = {"train": str(path), "audio_root": None}
    made = config_from({"training": {"eval_strategy": "no"}, "data": data, "audio": {"channel": value}})
    assert [example.audio.channel for example in open_split(made, "train")] == expected
    with pytest.raises(UserError, match=r"audio\.channel"):
        config_from({"training": {"eval_strategy": "no"}, "data": data, "audio": {"channel": "middle"}})


def test_shards_hold_the_channel_alone(tmp_path: Path) -> None:
    rows, x, y = call(tmp_path)
    write_shards(load_manifest(manifest(tmp_path / "rows.tsv", rows)), tmp_path / "shards")
    shards = load_shards(tmp_path / "shards", default_domain="phone")
    for row, wanted in enumerate((x, y)):
        assert shards[row].audio.channel is None
        np.testing.assert_allclose(shards.waveform(row, RATE), wanted, atol=1e-4)


def test_a_registry_keeps_the_channel_and_its_copies_hold_all(tmp_path: Path) -> None:
    rows, x, y = call(tmp_path / "data")
    rows = [{**row, "split": "train"} for row in rows]
    source = manifest(tmp_path / "data" / "rows.tsv", rows)
    database = str(tmp_path / "registry.db")
    prepare(Settings(table=source, database=database, conversion=Conversion(folder=tmp_path / "copies")))
    split = load_version(database, "v1", "train")
    assert all("copies" in example.audio.path for example in split)
    wanted = {"the left side": x, "the right side": y}
    for row, example in enumerate(split):
        np.testing.assert_allclose(split.waveform(row, RATE), wanted[example.texts["transcribe"]], atol=1e-3)


def antiphase(folder: Path, good: int = 2) -> Path:
    """A table of ``good`` clips and one whose channels cancel each other."""
    x = tone(1.0)
    rows = []
    for number in range(good + 1):
        soundfile.write(folder / f"{number}.wav", np.stack([x, x if number else -x], axis=1), RATE)
        rows.append(
            {"audio_path": f"{number}.wav", "duration": "1.0", "transcript": "a tone", "split": "train"}
        )
    return manifest(folder / "rows.tsv", rows)


def test_summaries_say_how_many_clips_lost_a_channel(tmp_path: Path) -> None:
    source = antiphase(tmp_path)
    said = "1 clip kept, channels_cancel: for example 0.wav:"
    _, ledger = preprocess(source, tmp_path / "clean.tsv", decode=True)
    assert len(ledger) == 0 and said in ledger.summary() and "channel 0, which is taken" in ledger.summary()
    written = write_shards(load_manifest(source), tmp_path / "shards")
    assert written.total.samples == 3 and said in written.dropped.summary()
    done = prepare(Settings(table=source, database=str(tmp_path / "registry.db")))
    assert done.imported.notes.counts() == {"channels_cancel": 1}


def test_a_copy_is_mono_where_one_choice_holds_and_keeps_the_channels_where_none_does(tmp_path: Path) -> None:
    x = tone(4.0)
    half = x.copy()
    half[: 2 * RATE] *= -1
    for name, other, channels in [("cancels", -x, 1), ("adds", x, 1), ("both", half, 2)]:
        ref = saved(tmp_path / f"{name}.wav", x, other)
        file = registry_sound.hashed(registry_sound.look(Path(ref.path)))
        copy = registry_sound.convert(file, tmp_path / "copies", RATE)
        assert soundfile.info(copy).channels == channels
        for start, end in [(0.0, 1.0), (1.0, 3.0), (3.0, None)]:
            of_copy = load_audio(AudioRef(path=str(copy), start=start, end=end), RATE)
            np.testing.assert_allclose(
                of_copy, load_audio(AudioRef(path=ref.path, start=start, end=end), RATE), atol=1e-4
            )


def test_transcribe_hears_what_the_mean_would_lose_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "training.transcription.transcriber.load_trained", lambda folder: recogniser(ctc=True)
    )
    draw = random.Random(1)
    left, right = (draw.choices(range(24), k=120) for _ in SIDES)
    x, y = (speak(ids) for ids in (left, right))
    saved(tmp_path / "cancels.wav", x, -x)
    saved(tmp_path / "call.wav", x, y)
    model = ["--model", str(tmp_path)]
    assert transcribe.main([str(tmp_path / "cancels.wav"), *model]) == 0
    told = capsys.readouterr()
    assert told.out.split("\t")[2].split() == [WORDS[k] for k in left]
    assert "warning: " in told.err and "cancels.wav: the channels cancel each other" in told.err
    assert "channel 0, which is used" in told.err
    for side, ids in zip(SIDES, (left, right), strict=True):
        assert transcribe.main([str(tmp_path / "call.wav"), *model, "--channel", side]) == 0
        told = capsys.readouterr()
        assert told.out.split("\t")[2].split() == [WORDS[k] for k in ids] and not told.err
    with pytest.raises(UserError, match="--channel: 'middle' is neither"):
        transcribe.main([str(tmp_path / "call.wav"), *model, "--channel", "middle"])


@pytest.mark.parametrize("size", [0, 1000, 0xFFFFFFFF])
def test_every_command_reads_a_wav_with_an_old_header_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    monkeypatch.setattr(
        "training.transcription.transcriber.load_trained", lambda folder: recogniser(ctc=True)
    )
    ids = random.Random(3).choices(range(24), k=60)
    sound = speak(ids)
    soundfile.write(tmp_path / "old.wav", sound, RATE)
    content = bytearray((tmp_path / "old.wav").read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "old.wav").write_bytes(content)
    assert transcribe.main([str(tmp_path / "old.wav"), "--model", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\t")[2].split() == [WORDS[k] for k in ids]
    row = {
        "audio_path": "old.wav",
        "duration": f"{len(sound) / RATE}",
        "transcript": "words",
        "split": "train",
    }
    source = manifest(tmp_path / "rows.tsv", [row])
    _, ledger = preprocess(source, tmp_path / "clean.tsv", decode=False)
    assert not len(ledger)
    write_shards(load_manifest(source), tmp_path / "shards")
    shards = load_shards(tmp_path / "shards", default_domain="tones")
    np.testing.assert_allclose(shards.waveform(0, RATE), sound, atol=1e-4)
    assert shards.seconds(0) == pytest.approx(len(sound) / RATE)
    done = prepare(Settings(table=source, database=str(tmp_path / "registry.db")))
    assert done.imported.kept[0].seconds == pytest.approx(len(sound) / RATE)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_transcribe_hears_joined_recordings_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    monkeypatch.setattr(
        "training.transcription.transcriber.load_trained", lambda folder: recogniser(ctc=True)
    )
    ids = random.Random(2).choices(range(24), k=160)
    content = b""
    for part in (ids[:80], ids[80:]):
        soundfile.write(tmp_path / f"part.{suffix}", speak(part), RATE)
        content += (tmp_path / f"part.{suffix}").read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(content)
    assert transcribe.main([str(path), "--model", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\t")[2].split() == [WORDS[k] for k in ids]


def test_a_channel_that_a_file_lacks_is_told_by_its_header(tmp_path: Path) -> None:
    ref = saved(tmp_path / "a.wav", tone(0.5), tone(0.5))
    info = probe(ref.path)
    assert segment_duration(replace(ref, channel=1), info) == 0.5
    with pytest.raises(AudioError, match=r"channel 7 is asked for .* it has 2"):
        segment_duration(replace(ref, channel=7), info)
