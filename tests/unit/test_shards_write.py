"""Manifests as shards and back: what WebDataset's convention asks, every format, and folders that are whole or absent."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from shard_assets import archive, folder, member, wav
from speech_files import manifest, sound

from training import cli
from training.base.errors import UserError
from training.data import audio
from training.data.audio import load_audio
from training.data.manifest import load_manifest
from training.data.sound import ffmpeg
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards

RATE = 16_000
CONVENTION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""How the library webdataset takes a name apart: key and extension."""


def as_webdataset_reads(path: Path) -> list[dict[str, Any]]:
    """Samples as the library groups them: a new one begins where the key changes."""
    samples: list[dict[str, Any]] = []
    with tarfile.open(path, "r|") as tar:
        for one in tar:
            match = CONVENTION.match(one.name)
            assert match is not None and one.isreg()
            if not samples or samples[-1]["__key__"] != match[1]:
                samples.append({"__key__": match[1]})
            assert match[2] not in samples[-1]
            file = tar.extractfile(one)
            assert file is not None
            samples[-1][match[2]] = file.read()
    return samples


def table(folder: Path, clips: int = 5, **fields: Any) -> Path:
    rows = [
        {
            "id": f"talk/{i}.wav",
            "audio_path": sound(folder / f"c{i}.wav", 0.5 + i / 10, RATE, i).name,
            "duration": 0.5 + i / 10,
            "transcript": f"câu {i}",
            "domain": "normal" if i % 2 else "dyslexic",
            **fields,
        }
        for i in range(clips)
    ]
    return manifest(folder / "all.tsv", rows)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.cli", "shards", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_literal_commands(tmp_path: Path) -> None:
    source, output = table(tmp_path), tmp_path / "shards" / "train"
    write = ["write", "--manifest", str(source), "--output", str(output), "--samples_per_shard", "2"]
    done = run(*write)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"written: {output}: 5 samples, 0.001 h, in 3 shards\n"
    assert json.loads((output / "metadata.json").read_text()) == {
        "total_samples": 5,
        "total_hours": 0.000972,
        "domains": {
            "dyslexic": {"samples": 3, "hours": 0.000583},
            "normal": {"samples": 2, "hours": 0.000389},
        },
        "shards": [
            {"filename": "shard_000000.tar", "samples": 2},
            {"filename": "shard_000001.tar", "samples": 2},
            {"filename": "shard_000002.tar", "samples": 1},
        ],
    }
    shown = run("stats", str(tmp_path / "shards"))
    assert shown.stdout.splitlines() == [
        "train: 5 samples, 0.001 h, 3 shards, none refused",
        "  dyslexic: 3 samples, 0.001 h",
        "  normal: 2 samples, 0.000 h",
    ]
    again = run(*write)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    assert run(*write, "--overwrite").returncode == 0
    estimated = run("stats", str(output), "--samples_per_shard", "1000")
    assert estimated.stdout == "train: about 5 samples (no shard was opened)\n"


def test_the_convention_of_webdataset(tmp_path: Path) -> None:
    fields = {
        "language": "ko",
        "speaker": "s",
        "words": '[["câu", 0, 0.2], ["x", 0.2, 0.4]]',
        "start": "",
        "note": "q",
    }
    write_shards(load_manifest(table(tmp_path, **fields)), tmp_path / "out", samples_per_shard=3)
    assert [path.name for path in sorted(tmp_path.glob("out/*.tar"))] == [
        "shard_000000.tar",
        "shard_000001.tar",
    ]
    samples = [one for path in sorted(tmp_path.glob("out/*.tar")) for one in as_webdataset_reads(path)]
    assert [one["__key__"] for one in samples] == [f"{i:09}" for i in range(5)]
    assert all(set(one) == {"__key__", "wav", "json"} for one in samples)
    assert samples[2]["wav"] == (tmp_path / "c2.wav").read_bytes()
    assert json.loads(samples[2]["json"]) == {
        "id": "talk/2.wav",
        "duration": 0.7,
        "transcript": "câu 2",
        "domain": "dyslexic",
        "language": "ko",
        "speaker": "s",
        "words": [["câu", 0.0, 0.2], ["x", 0.2, 0.4]],
        "note": "q",
    }


def four_formats(folder: Path) -> list[dict[str, Any]]:
    """One sentence in each of the four formats; M4A only where ffmpeg can make it."""
    wav = sound(folder / "a.wav", 1.0, RATE)
    samples, _ = soundfile.read(wav)
    for suffix in ("flac", "mp3"):
        soundfile.write(folder / f"a.{suffix}", samples, RATE)
    found = ["wav", "flac", "mp3"]
    if (program := audio.find_ffmpeg()) is not None:
        subprocess.run([program, "-v", "error", "-i", str(wav), str(folder / "a.m4a")], check=True)
        found.append("m4a")
    return [
        {"id": one, "audio_path": f"a.{one}", "duration": 1.0, "transcript": one, "domain": "n"}
        for one in found
    ]


def test_every_format_comes_back_as_it_was(tmp_path: Path) -> None:
    original = load_manifest(manifest(tmp_path / "m.jsonl", four_formats(tmp_path)))
    write_shards(original, tmp_path / "out")
    source = load_shards(tmp_path / "out")
    assert [Path(example.audio.path).suffix for example in source] == [f".{name}" for name in original.ids]
    for row, example in enumerate(original):
        assert source._bytes(row) == Path(example.audio.path).read_bytes()
        np.testing.assert_array_equal(source.waveform(row, RATE), original.waveform(row, RATE))
        assert source.seconds(row) == original.seconds(row)
        assert source[row].texts == example.texts


def test_m4a_in_a_shard(tmp_path: Path) -> None:
    rows = four_formats(tmp_path)
    if rows[-1]["id"] != "m4a":
        pytest.skip("no ffmpeg on this machine (nor the package imageio-ffmpeg)")
    write_shards(load_manifest(manifest(tmp_path / "m.jsonl", rows[-1:])), tmp_path / "out")
    source = load_shards(tmp_path / "out")
    assert abs(len(source.waveform(0, RATE)) - RATE) < RATE // 10
    with pytest.raises(audio.AudioError, match=r"^broken: ffmpeg cannot decode it"):
        audio.probe_bytes(source._bytes(0)[:40], "broken")


def test_m4a_without_ffmpeg_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "find_ffmpeg", lambda: None)
    with pytest.raises(audio.AudioError, match=r"^shard\.tar/a\.m4a: \.m4a needs ffmpeg"):
        audio.probe_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 100, "shard.tar/a.m4a")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_stretch_of_a_file_becomes_flac_without_a_changed_bit(tmp_path: Path, channels: int) -> None:
    noise = np.random.default_rng(0).integers(-32768, 32768, (4 * 22_050, channels)).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", noise, 22_050, subtype="PCM_16")
    rows = [
        {"id": f"{a}-{b}", "audio_path": "long.wav", "start": a, "end": b, "transcript": "x", "domain": "n"}
        for a, b in ((0, 4), (1, 2.5), (0, 1))
    ]
    original = load_manifest(manifest(tmp_path / "m.tsv", rows))
    write_shards(original, tmp_path / "out")
    whole, middle, front = as_webdataset_reads(tmp_path / "out" / "shard_000000.tar")
    assert whole["wav"] == (tmp_path / "long.wav").read_bytes()
    for sample, (start, end) in ((middle, (1, 2.5)), (front, (0, 1))):
        read, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16", always_2d=True)
        assert rate == 22_050
        np.testing.assert_array_equal(read, noise[int(start * 22_050) : int(end * 22_050)])
    source = load_shards(tmp_path / "out")
    assert source.durations.tolist() == [4.0, 1.5, 1.0]
    np.testing.assert_array_equal(source.waveform(1, RATE), load_audio(original[1].audio, RATE))


def test_rows_that_cannot_be_used_are_listed_and_left_out(tmp_path: Path) -> None:
    path = table(tmp_path)
    (tmp_path / "c1.wav").unlink()
    (tmp_path / "c2.wav").write_bytes((tmp_path / "c2.wav").read_bytes()[:900])
    path.write_text(path.read_text(encoding="utf-8").replace("câu 3", ""), encoding="utf-8")
    written = write_shards(load_manifest(path), tmp_path / "out")
    assert written.total.samples == 2
    assert (tmp_path / "out" / "dropped.tsv").read_text(encoding="utf-8").split("\n")[
        0
    ] == "id\treason\tdetail"
    assert [(drop.id, drop.reason) for drop in written.dropped] == [
        ("talk/1.wav", "missing_audio"),
        ("talk/2.wav", "unreadable_audio"),
        ("talk/3.wav", "empty_text"),
    ]
    assert load_shards(tmp_path / "out").ids == ["talk/0.wav", "talk/4.wav"]
    for clip in (0, 4):
        (tmp_path / f"c{clip}.wav").unlink()
    with pytest.raises(UserError, match="no row can be written"):
        write_shards(load_manifest(path), tmp_path / "none")
    assert not list(tmp_path.glob("*none*")) and not list(tmp_path.glob(".none*"))


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    source = load_manifest(table(tmp_path))
    for name in ("one", "two"):
        write_shards(source, tmp_path / name)
    one, two = ((tmp_path / name / "shard_000000.tar").read_bytes() for name in ("one", "two"))
    assert one == two


def test_nothing_is_overwritten_unasked_and_nothing_foreign_ever(tmp_path: Path) -> None:
    source, output = load_manifest(table(tmp_path)), tmp_path / "out"
    output.mkdir()
    write_shards(source, output, samples_per_shard=1)
    before = sorted(path.name for path in output.iterdir())
    with pytest.raises(UserError, match="holds shards already; --overwrite"):
        write_shards(source, output)
    assert sorted(path.name for path in output.iterdir()) == before
    load_shards(output)
    write_shards(source, output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["metadata.json", "shard_000000.tar"]
    assert len(load_shards(output)) == 5
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files, such as thesis\.txt"):
        write_shards(source, output, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        write_shards(source, tmp_path / "all.tsv", overwrite=True)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_call_that_is_killed_leaves_nothing_that_looks_finished(tmp_path: Path, overwrite: bool) -> None:
    source, output = table(tmp_path, 3), tmp_path / "shards" / "train"
    if overwrite:
        write_shards(load_manifest(source), output)
    before = {path.name: path.read_bytes() for path in output.glob("*")}
    many = manifest(
        tmp_path / "many.tsv",
        [
            {"id": i, "audio_path": "c0.wav", "duration": 0.5, "transcript": "x", "domain": "n"}
            for i in range(20_000)
        ],
    )
    options = ["--manifest", str(many), "--output", str(output), *(["--overwrite"] if overwrite else [])]
    process = subprocess.Popen([sys.executable, "-m", "training.cli", "shards", "write", *options])
    deadline = time.monotonic() + 100
    while len(list((tmp_path / "shards").glob(".train.*/train/*.tar"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {path.name: path.read_bytes() for path in output.glob("*")} == before
    left = [path for path in (tmp_path / "shards").rglob("metadata.json") if path.parent != output]
    assert not left
    assert run("stats", str(tmp_path / "shards")).returncode == (0 if overwrite else 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["write", "--manifest", "gone.tsv", "--output", "x"], "gone.tsv: no such file"),
        (["stats", "gone"], "gone: no such folder"),
        (["stats", "training/data"], "neither it nor a folder in it holds shards"),
        (["stats", ".", "--samples_per_shard", "0"], "--samples_per_shard 0: give at least 1"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shards", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_stats_of_shards_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "val_small", {"shard_000000": 2}, domain="a")
    archive(path / "shard_000001.tar", [member("x.wav", wav())])
    folder(tmp_path / "val_small_normal", {"shard_000000": 1})
    assert cli.main(["shards", "stats", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "val_small: 2 samples, 0.000 h, 2 shards, 1 refused (1 empty_text)",
        "  a: 2 samples, 0.000 h",
        f"  {path}/metadata.json is missing: 2 samples counted in 2 shards",
        "val_small_normal: 1 samples, 0.000 h, 1 shards, none refused",
        "  (no domain): 1 samples, 0.000 h",
        f"  {tmp_path}/val_small_normal/metadata.json is missing: 1 samples counted in 1 shards",
    ]


def test_stats_of_damaged_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures stand, and the status is 1, so that a script that copied them sees it; estimates open nothing."""
    path = folder(tmp_path / "train", {"shard_000000": 2, "shard_000001": 2}, domain="a")
    cut, noise = path / "shard_000001.tar", path / "shard_000002.tar"
    cut.write_bytes(cut.read_bytes()[:600])
    noise.write_bytes(np.random.default_rng(0).bytes(3000))
    for _ in range(2):  # the second time from the index that is kept
        assert cli.main(["shards", "stats", str(path)]) == 1
        said = capsys.readouterr()
        assert said.out.startswith("train: 2 samples, 0.000 h, 3 shards, ")
        first, second = said.err.splitlines()
        assert first.startswith(f"damaged: {cut}: ") and second.startswith(f"damaged: {noise}: bytes 0 to ")
        assert second.endswith("; copy it again, or write it anew")
    assert cli.main(["shards", "stats", str(path), "--samples_per_shard", "2"]) == 0


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = manifest(tmp_path / "m.tsv", [{"audio_path": "a.wav", "duration": 1.0, "transcript": "x"}])
    output = source / "shards"
    assert cli.main(["shards", "write", "--manifest", str(source), "--output", str(output)]) == 2
    assert f"error: --output: {source} cannot be written to" in capsys.readouterr().err
