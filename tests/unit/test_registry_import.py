"""Importing: twice, broken rows, files that moved or changed, conversion, splits that stay."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from registry_files import corpus, imported, noise, opened, settings, table
from sqlalchemy import func, select

from training.base.errors import UserError
from training.cli import prepare_data
from training.data import levels
from training.data.ledger import DropLedger
from training.data.manifest import load_manifest
from training.registry import versions
from training.registry.checks import Rules
from training.registry.importing import Conversion
from training.registry.prepare import prepare, write_ledgers
from training.registry.schema import AudioFile, Transcript
from training.registry.source import load_version
from training.registry.views import statistics


def counts(source: Path) -> tuple[int, int]:
    with opened(source) as registry, registry.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(t)).scalar_one()
            for t in (AudioFile, Transcript)
        )  # type: ignore[return-value]


def reasons(ledger: DropLedger) -> dict[str, str]:
    return {Path(drop.id).stem: drop.reason for drop in ledger}


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    first = imported(source)
    again = imported(source)
    assert (first.imported.added_files, first.imported.added_transcripts) == (12, 12)
    assert (again.imported.added_files, again.imported.added_transcripts) == (0, 0)
    assert first.version == versions.Frozen("v1", True)
    assert again.version == versions.Frozen("v1", False)
    assert counts(source) == (12, 12)


def test_second_import_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path)
    imported(source)

    def refuse(*_: object) -> None:
        raise AssertionError("opened again")

    for name in ("look", "hashed", "decoded"):
        monkeypatch.setattr(f"training.registry.importing.{name}", refuse)
    assert len(imported(source).imported.kept) == 12


def test_table_of_the_guide(tmp_path: Path) -> None:
    lines = ["file_path,transcript,duration,split,speaker_id"]
    for i, (text, split) in enumerate(
        [("xin chào việt nam", "train"), ("tôi là sinh viên", "val"), ("đẹp", "test")]
    ):
        noise(tmp_path / "raw" / f"audio{i}.wav", 2.0, seed=i)
        lines.append(f"raw/audio{i}.wav,{text},,{split},speaker_0{i}")
    source = table(tmp_path / "metadata.csv", lines)
    imported(source, auto_split=False)
    parts = {s: load_version(str(tmp_path / "registry.db"), "v1", s)[0] for s in ("train", "dev", "test")}
    assert [e.texts["transcribe"] for e in parts.values()] == ["xin chào việt nam", "tôi là sinh viên", "đẹp"]
    assert [e.speaker for e in parts.values()] == ["speaker_00", "speaker_01", "speaker_02"]
    assert all(e.duration == 2.0 for e in parts.values())


def broken_rows(folder: Path) -> Path:
    raw = folder / "raw"
    good = noise(raw / "good.wav", seed=1)
    (raw / "empty.wav").write_bytes(b"")
    (raw / "truncated.wav").write_bytes(good.read_bytes()[:-4000])
    (raw / "text.wav").write_text("this is no sound")
    noise(raw / "samples0.wav", 0.0)
    noise(raw / "short.wav", 0.05)
    noise(raw / "quick.wav", 0.3, seed=3)
    noise(raw / "slow_rate.wav", rate=4000, seed=4)
    soundfile.write(raw / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(raw / "offset.wav", np.full(8000, 0.5), 8000)
    soundfile.write(
        raw / "clipped.wav", np.clip(np.random.default_rng(5).normal(0, 5, 8000), -1, 1).repeat(3), 8000
    )
    soundfile.write(raw / "nan.wav", np.full(8000, np.nan, np.float32), 8000, subtype="FLOAT")
    for name in ("copy", "wrong_length", "no_text", "tag_only", "bad_number", "bad_split"):
        (raw / f"{name}.wav").write_bytes(good.read_bytes())
    return table(
        folder / "metadata.csv",
        [
            "file_path,transcript,duration,split,speaker_id",
            "raw/good.wav,hello,1.0,train,a",
            "raw/copy.wav,hello,1.0,train,a",
            "raw/missing.wav,hello,1.0,train,a",
            *(
                f"raw/{n}.wav,hello,,train,a"
                for n in ("empty", "truncated", "text", "samples0", "short", "slow_rate")
            ),
            "raw/quick.wav,a transcript that is far too long,,train,a",
            *(f"raw/{n}.wav,hello,,train,a" for n in ("silent", "offset", "clipped", "nan")),
            "raw/wrong_length.wav,hello,5.0,train,a",
            "raw/no_text.wav,,1.0,train,a",
            "raw/tag_only.wav,[laughter],1.0,train,a",
            "raw/bad_number.wav,hello,soon,train,a",
            "raw/bad_split.wav,hello,1.0,maybe,a",
            "raw/stray.wav,hello, world,1.0,train,a",
        ],
    )


def test_every_broken_row_has_its_reason_and_stops_nothing(tmp_path: Path) -> None:
    done = imported(broken_rows(tmp_path), auto_split=False)
    assert [k.index for k in done.imported.kept] == [0]
    assert reasons(done.ledger) == {
        "copy": "duplicate",
        "missing": "missing_audio",
        "empty": "unreadable_audio",
        "truncated": "unreadable_audio",
        "text": "unreadable_audio",
        "samples0": "unreadable_audio",
        "nan": "nan_samples",
        "short": "too_short",
        "slow_rate": "low_rate",
        "quick": "not_alignable",
        "silent": "digital_silence",
        "offset": "digital_silence",
        "clipped": "clipped",
        "wrong_length": "duration_mismatch",
        "no_text": "empty_transcript",
        "tag_only": "empty_transcript",
        "bad_number": "bad_row",
        "bad_split": "bad_split",
        "metadata": "bad_row",  # the stray comma: metadata.csv:21 names it
    }
    assert all(f"{tmp_path / 'metadata.csv'}:" in drop.detail for drop in done.ledger)
    assert (
        "metadata.csv:21: 6 cells, the header names 5" in next(d for d in done.ledger if "21" in d.id).detail
    )
    assert len(done.ledger) + 1 == done.total == 20


def test_ledger_is_written_with_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = broken_rows(tmp_path)
    database = tmp_path / "db" / "registry.db"
    assert prepare_data.main(["--csv_path", str(source), "--database", str(database)]) == 0
    assert "1 of 20 rows can be used" in capsys.readouterr().out
    written = (tmp_path / "db" / "v1_dropped.tsv").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 20
    assert "metadata.csv:4: " in written


def test_a_version_without_dev_rows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = corpus(tmp_path)
    text = (
        source.read_text(encoding="utf-8")
        .replace("1.0,,", "1.0,train,")
        .replace("1.0,train,", "1.0,test,", 3)
    )
    source.write_text(text, encoding="utf-8")
    command = ["--csv_path", str(source), "--database", str(tmp_path / "registry.db")]
    assert prepare_data.main(command) == 0
    assert "no dev rows" in capsys.readouterr().out
    assert prepare_data.main([*command, "--dev_from_train", "0.3"]) == 0
    assert "no dev rows" not in capsys.readouterr().out


def test_dry_run_stores_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = corpus(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = [
        "--csv_path",
        str(source),
        "--database",
        str(tmp_path / "registry.db"),
        "--auto_split",
        "--dry_run",
    ]
    assert prepare_data.main(options) == 0
    said = capsys.readouterr().out
    assert "12 of 12 rows can be used" in said and "nothing was stored" in said
    assert sorted(tmp_path.rglob("*")) == before


def three_hours(path: Path, rate: int = 8000) -> Path:
    """A sparse WAV of three hours; its last ten seconds are noise."""
    size = 3 * 3600 * rate * 2
    riff = (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    )
    loud = np.random.default_rng(0).integers(-9000, 9000, 10 * rate).astype("<i2").tobytes()
    with path.open("wb") as handle:
        handle.write(riff + b"data" + struct.pack("<I", size))
        handle.seek(44 + size - len(loud))
        handle.write(loud)
    return path


def test_three_hour_file_is_refused_whole_and_taken_in_stretches(tmp_path: Path) -> None:
    three_hours(tmp_path / "talk.wav")
    rows = ["audio_path,start,end,transcript,split", "talk.wav,10793,10796,hello there,train"]
    done = imported(
        table(tmp_path / "cut.csv", [*rows, "talk.wav,60,63,nothing here,train"]), auto_split=False
    )
    assert [drop.reason for drop in done.ledger] == ["digital_silence"]
    example = load_version(str(tmp_path / "registry.db"), "v1", "train")[0]
    assert (example.audio.start, example.audio.end, example.duration) == (10793.0, 10796.0, 3.0)
    whole = table(tmp_path / "whole.csv", ["audio_path,transcript,split", "talk.wav,hello there,train"])
    with pytest.raises(UserError, match=r"too_long[\s\S]*whole_dropped.tsv"):
        imported(whole, auto_split=False)
    assert "10800.000 s, at most 30 s: cut it" in (tmp_path / "whole_dropped.tsv").read_text(encoding="utf-8")


def test_96_khz_stereo_is_converted_once_and_only_where_needed(tmp_path: Path) -> None:
    time = np.arange(96_000 * 2) / 96_000
    tone = np.sin(2 * np.pi * 1000 * time) * 0.4
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw" / "studio.wav", np.stack([tone, tone * 0.5], axis=1), 96_000)
    noise(tmp_path / "raw" / "phone.wav")
    lines = ["file_path,transcript,split", "raw/studio.wav,a tone,train", "raw/phone.wav,a hiss,train"]
    source = table(tmp_path / "metadata.csv", lines)
    imported(source, auto_split=False)  # without copies first: they are made by the next call
    done = imported(source, auto_split=False, conversion=Conversion(folder=tmp_path / "processed"))
    (copy,) = (tmp_path / "processed").rglob("*.wav")
    info = soundfile.info(copy)
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 32_000, "PCM_16")
    assert done.imported.converted == 1 and done.imported.added_files == 0
    split = load_version(str(tmp_path / "registry.db"), "v1", "train")
    assert [Path(e.audio.path).parent.name != "raw" for e in split] == [True, False]
    expected = 0.75 * 0.4 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)
    assert np.abs(split.waveform(0, 16_000) - expected)[100:-100].max() < 1e-3


def test_bad_tables_name_file_and_line(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("file_path,transcript,split\na.wav,ok,train\na.wav,café,train\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv:3: not UTF-8 \(byte 0xe9"):
        prepare(settings(latin))
    wide = tmp_path / "wide.csv"
    wide.write_bytes("file_path,transcript\na.wav,ok\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"wide.csv:1: the file is UTF-16"):
        prepare(settings(wide))
    with pytest.raises(
        UserError, match=r"x.csv:1: the column 'transcript' is missing.*--column transcript=NAME"
    ):
        prepare(settings(table(tmp_path / "x.csv", ["file_path,split", "a.wav,train"])))
    with pytest.raises(UserError, match=r"y.csv:1: the column 'audio_path' is missing"):
        prepare(settings(table(tmp_path / "y.csv", ["wav_name,transcript", "a.wav,hello"])))
    with pytest.raises(UserError, match=r"z.csv:1: no row names its split; add --auto_split"):
        prepare(
            settings(table(tmp_path / "z.csv", ["file_path,transcript", "a.wav,hello"]), auto_split=False)
        )
    with pytest.raises(UserError, match=r"n.csv:2: no speaker in this row"):
        prepare(
            settings(table(tmp_path / "n.csv", ["file_path,transcript", "a.wav,hello"]), strategy="speaker")
        )
    assert not (tmp_path / "registry.db").exists()


def test_replaced_recording_is_not_read_for_the_old_version(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    noise(tmp_path / "raw" / "3.wav", 1.0, seed=99)
    assert imported(source).version == versions.Frozen("v2", True)
    parts = ("train", "dev", "test")
    with opened(source) as registry:
        (split,) = {r.split for r in versions.rows(registry, "v1") if r.path is None}
    with pytest.raises(UserError, match=r"1 recordings of this version are no longer.*'raw/3.wav'"):
        load_version(str(tmp_path / "registry.db"), "v1", split)
    assert sum(len(load_version(str(tmp_path / "registry.db"), "v2", s)) for s in parts) == 12


def test_files_that_swap_names_are_followed(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    a, b, spare = (tmp_path / "raw" / name for name in ("0.wav", "1.wav", "spare.wav"))
    wanted = {row: soundfile.read(tmp_path / "raw" / f"{row}.wav")[0] for row in (0, 1)}
    a.rename(spare), b.rename(a), spare.rename(b)
    lines = (
        source.read_text().replace("raw/0.", "raw/x.").replace("raw/1.", "raw/0.").replace("raw/x.", "raw/1.")
    )
    source.write_text(lines)
    assert imported(source).imported.added_files == 0
    with opened(source) as registry:
        found = {r.text: registry.resolve(r.path) for r in versions.rows(registry, "v1")}
    assert np.array_equal(soundfile.read(found["one one"])[0], wanted[0])
    assert np.array_equal(soundfile.read(found["two one"])[0], wanted[1])


def test_registry_can_be_moved_with_its_recordings(tmp_path: Path) -> None:
    imported(corpus(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    split = load_version(str(tmp_path / "there" / "registry.db"), "v1", "train")
    assert len(split.waveform(0, 16_000)) == 16_000


def test_split_reads_like_the_manifest_it_came_from(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 3.0)
    lines = [
        "id\taudio_path\tduration\tstart\tend\ttranscript\ttranslation\tlanguage\tspeaker\tvideo_id\twords\tage\tsplit",
        'u1\ta.wav\t1.5\t0.25\t1.75\thallo welt\thello world\tde\ts1\tv1\t[["hallo", 0, 0.5], ["welt", 0.5, 1]]\t30\ttrain',
        "u2\ta.wav\t\t\t\tnichts\t\t\t\t\t\t\ttrain",
    ]
    source = table(tmp_path / "m.tsv", lines)
    imported(source, auto_split=False)
    split = load_version(str(tmp_path / "registry.db"), "v1", "train")
    expected = load_manifest(
        table(tmp_path / "n.tsv", [*lines[:2], lines[2].replace("a.wav\t\t", "a.wav\t3.0\t")])
    )
    for got, want in zip(split, expected, strict=True):
        for name in ("id", "audio", "duration", "texts", "language", "speaker", "group", "words"):
            assert getattr(got, name) == getattr(want, name), name
    assert split.column("age") == ["30", None]
    assert split.sha256() == pickle.loads(pickle.dumps(split)).sha256() != split.select([0]).sha256()


def test_frozen_version_is_not_changed(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source, version="v1")
    source.write_text(source.read_text().replace("one one", "one more"))
    with pytest.raises(UserError, match=r"--version v1: is frozen"):
        imported(source, version="v1")
    assert imported(source).version == versions.Frozen("v2", True)
    with opened(source) as registry:
        found = versions.diff(registry, "v1", "v2")
    assert [(a, b) for _, a, b in found.changed] == [
        ("one one", "one more")
    ] and not found.added + found.removed


def test_extending_keeps_splits_and_takes_corrections(tmp_path: Path) -> None:
    source = corpus(tmp_path, rows=24, speakers=8)
    imported(source, strategy="speaker")
    with opened(source) as registry:
        before = {r.utterance: r.split for r in versions.rows(registry, "v1")}
    old = source.read_text().replace(",one one,", ",one corrected,").splitlines()
    new = corpus(tmp_path, rows=16, speakers=10, first=24).read_text().splitlines()
    table(source, [line for line in [*old, *new[1:]] if not line.startswith("raw/5.wav")])
    imported(source, strategy="speaker", extend="v1", seed=7)
    with opened(source) as registry:
        after = {r.utterance: r for r in versions.rows(registry, "v2")}
        shared = statistics(registry, "v2")["overlap"]
    assert len(after) == 40 and after["raw/0.wav"].text == "one corrected"
    assert {name: after[name].split for name in before} == before
    assert all(pair["speakers"]["shared"] == 0 for pair in shared.values())


def test_ledger_of_others_is_left_alone(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    (tmp_path / "v1_dropped.tsv").write_text("mine")
    ledger = DropLedger()
    ledger.add("x", "bad_row", "y")
    with pytest.raises(UserError, match="already there"):
        write_ledgers(settings(source), "v1", ledger, DropLedger())
    assert (tmp_path / "v1_dropped.tsv").read_text() == "mine"


@pytest.mark.parametrize("decode", [True, False])
def test_a_file_that_cannot_be_converted_whole_is_read_where_it_lies(tmp_path: Path, decode: bool) -> None:
    """Its NaN lies outside the stretch that is used, so the stretch is sound."""
    samples = np.random.default_rng(0).normal(0, 0.1, (5 * 16_000, 2)).astype(np.float32)
    samples[-1, 1] = np.nan
    soundfile.write(tmp_path / "talk.wav", samples, 16_000, subtype="FLOAT")
    rows = ["audio_path,start,end,transcript,split", "talk.wav,1,3,hello there,train"]
    source = table(tmp_path / "cut.csv", rows)
    copies = Conversion(folder=tmp_path / "copies")
    rules = Rules(decode=decode)
    done = imported(source, auto_split=False, conversion=copies, rules=rules)
    assert (len(done.imported.kept), done.imported.converted, len(done.ledger)) == (1, 0, 0)
    assert [drop.reason for drop in done.imported.notes] == ["not_converted"]
    rows = load_version(str(tmp_path / "registry.db"), "v1", "train")
    assert Path(rows[0].audio.path) == tmp_path / "talk.wav" and np.isfinite(rows.waveform(0, 16_000)).all()


def test_rows_that_were_imported_undecoded_are_decoded_by_the_next_import_that_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = broken_rows(tmp_path)
    imported(source, auto_split=False, rules=Rules(decode=False))
    done = imported(source, auto_split=False)
    assert [k.index for k in done.imported.kept] == [0]
    assert {"nan": "nan_samples", "silent": "digital_silence", "clipped": "clipped"}.items() <= reasons(
        done.ledger
    ).items()
    assert done.version == versions.Frozen("v2", True)
    opened_again: list[object] = []
    real = levels.measure
    monkeypatch.setattr(
        "training.data.sound_checks.measure", lambda *given: opened_again.append(given) or real(*given)
    )
    again = imported(source, auto_split=False)
    assert again.version == versions.Frozen("v2", False)
    assert all("good" not in str(given) for given in opened_again)  # its level is known now
