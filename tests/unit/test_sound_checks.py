"""Faults that only decoding shows: each has its reason, in every command that decodes, and nothing else is left out."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_assets import archive, member
from speech_files import manifest

from training.base.errors import UserError
from training.cli.preprocess import main
from training.data import audio, decode_pool
from training.data.audio import AudioError, InfiniteSamples, NanSamples
from training.data.checks import check_audio
from training.data.decode_pool import DecodePool
from training.data.example import AudioRef, Example
from training.data.levels import Level, Meter, measure
from training.data.manifest import load_manifest
from training.data.prepare.clean import preprocess
from training.data.sound_checks import decoded, decoded_drop, level_drop, reason_of
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards
from training.registry.prepare import Settings, prepare

RATE = 16_000
ROOT = Path(__file__).parents[2]


def speech(seconds: float = 1.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def with_value(samples: np.ndarray, value: float, at: int = 500, channels: int = 1) -> np.ndarray:
    """The same in every channel; ``value`` in the last one."""
    wide = np.repeat(samples[:, None], channels, axis=1)
    wide[at, -1] = value
    return wide


def tone(db: float, seconds: float = 1.0) -> np.ndarray:
    """A sine whose RMS lies ``db`` below full scale."""
    time_ = np.arange(round(seconds * RATE)) / RATE
    return (np.sqrt(2) * 10 ** (db / 20) * np.sin(2 * np.pi * 440 * time_)).astype(np.float32)


SOUNDS: dict[str, tuple[Callable[[], np.ndarray], str | None]] = {
    "good": (speech, None),
    "nan": (lambda: with_value(speech(), np.nan), "nan_samples"),
    "nan_at_the_end": (lambda: with_value(speech(), np.nan, -1), "nan_samples"),
    "nan_in_one_channel": (lambda: with_value(speech(), np.nan, channels=2), "nan_samples"),
    "infinite": (lambda: with_value(speech(), np.inf), "infinite_samples"),
    "infinite_in_one_channel": (lambda: with_value(speech(), -np.inf, channels=2), "infinite_samples"),
    "sum_is_infinite": (lambda: np.full((RATE, 2), 3e38, np.float32), "infinite_samples"),
    "zeros": (lambda: np.zeros(RATE, np.float32), "digital_silence"),
    "offset": (lambda: np.full(RATE, 0.3, np.float32), "digital_silence"),
    "denormal": (lambda: speech(level=1e-40), "too_quiet"),
    "dither": (lambda: speech(level=2e-5), "too_quiet"),
    "quiet_on_an_offset": (lambda: tone(-70) + np.float32(0.5), "too_quiet"),
    "below": (lambda: tone(-60.1), "too_quiet"),
    "above": (lambda: tone(-59.9), None),
    "one_word_in_silence": (lambda: np.concatenate([np.zeros(RATE, np.float32), speech(0.1)]), None),
    "sound_in_the_last_24_ms": (
        lambda: np.concatenate([np.zeros(RATE, np.float32), speech(0.024, 0.02)]),
        None,
    ),
    "beyond_full_scale": (lambda: speech(level=30.0), None),
}


def write(folder: Path, name: str, samples: np.ndarray) -> Path:
    path = folder / f"{name}.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def table(folder: Path, name: str = "m.tsv", text: str = "hello there", **more: object) -> Path:
    """One row for each of `SOUNDS`."""
    rows = []
    for key, (make, _) in SOUNDS.items():
        samples = make()
        path = write(folder, key, samples)
        rows.append(
            {
                "id": key,
                "audio_path": path.name,
                "duration": len(samples) / RATE,
                "transcript": f"{text}",
                **more,
            }
        )
    return manifest(folder / name, rows)


EXPECTED = {key: reason for key, (_, reason) in SOUNDS.items() if reason}


def test_preprocess_lists_every_fault_by_its_reason_and_keeps_the_rest(tmp_path: Path) -> None:
    _, ledger = preprocess(table(tmp_path), tmp_path / "clean.tsv")
    assert {drop.id: drop.reason for drop in ledger} == EXPECTED
    assert load_manifest(tmp_path / "clean.tsv").ids == [key for key in SOUNDS if key not in EXPECTED]
    assert all(f"{tmp_path / 'm.tsv'}:" in drop.detail for drop in ledger)


def test_prepare_data_lists_the_same_faults_by_the_same_reasons(tmp_path: Path) -> None:
    source = table(tmp_path, "m.csv", split="train")
    done = prepare(Settings(table=source, database=str(tmp_path / "r.db"), dry_run=True))
    found = {drop.id: drop.reason for drop in done.ledger}
    assert found == {**EXPECTED, "beyond_full_scale": "clipped"}


def test_rows_of_shards_are_checked_alike(tmp_path: Path) -> None:
    rows = load_manifest(table(tmp_path))
    members = [
        entry
        for example in rows
        for entry in (
            (f"{example.id}.wav", Path(example.audio.path).read_bytes()),
            (f"{example.id}.txt", b"hello there"),
        )
    ]
    (tmp_path / "shards").mkdir()
    archive(tmp_path / "shards" / "shard_000000.tar", [member(*entry) for entry in members])
    source = load_shards(tmp_path / "shards", default_domain="x")
    reasons = {}
    for index in range(len(source)):
        example, found = check_audio(source, index, min_seconds=0.0, max_seconds=30.0, decode=True)
        if not isinstance(found, float):
            reasons[example.id.rpartition("/")[2]] = found.reason
    assert reasons == EXPECTED


def test_writing_shards_leaves_out_what_cannot_be_decoded(tmp_path: Path) -> None:
    written = write_shards(load_manifest(table(tmp_path)), tmp_path / "shards")
    assert {drop.id: drop.reason for drop in written.dropped} == EXPECTED
    assert written.total.samples == len(SOUNDS) - len(EXPECTED)


def test_many_rows_of_shards_are_not_decoded_and_broken_stretches_are_listed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.sources.shards.write.DECODE_BELOW", 0)
    write(tmp_path, "long", with_value(speech(4.0), np.nan, 3 * RATE))
    cells = {"audio_path": "long.wav", "transcript": "hello"}
    rows = [{**cells, "id": f"at{n}", "start": n, "end": n + 1} for n in range(4)]
    written = write_shards(load_manifest(manifest(tmp_path / "m.tsv", rows)), tmp_path / "shards")
    assert [(drop.id, drop.reason) for drop in written.dropped] == [("at3", "nan_samples")]


def test_silence_is_right_where_nothing_is_said() -> None:
    ref = AudioRef(path="x.wav")
    quiet = Level(1.0, -200.0, -200.0, -200.0, 0.0, 1.0, constant=True)
    row = Example(id="a", audio=ref, duration=1.0, texts={}, source="m.tsv:2")
    assert level_drop(row, quiet, []) is None
    assert level_drop(row, quiet, ["", " "]) is None
    assert level_drop(row, quiet, ["…"]) is None
    drop = level_drop(row, quiet, ["", "hello"])
    assert drop is not None and drop.reason == "digital_silence"
    broken = decoded_drop(row, NanSamples("x.wav", "NaN"), [])
    assert broken is not None and broken.reason == "nan_samples"


def test_only_the_stretch_counts(tmp_path: Path) -> None:
    path = str(write(tmp_path, "long", with_value(speech(5.0), np.nan, round(2.5 * RATE))))
    for start, end, bad in ((0.0, 2.5, False), (2.0, 3.0, True), (2.5, 2.6, True), (3.0, None, False)):
        found = decoded(AudioRef(path=path, start=start, end=end))
        assert isinstance(found, NanSamples) == bad, (start, end)
    assert isinstance(decoded(AudioRef(path=path)), NanSamples)


@pytest.mark.parametrize("samples", [1, 7, 399, 400, 401])
def test_clips_about_as_long_as_a_window_are_measured_whole(tmp_path: Path, samples: int) -> None:
    loud = decoded(AudioRef(path=str(write(tmp_path, "a", tone(-20)[:samples]))))
    assert isinstance(loud, Level)
    assert loud.seconds == samples / RATE
    assert loud.constant == (samples == 1)
    if samples >= 399:
        assert loud.loudest_db == pytest.approx(-20, abs=0.1)


def test_the_loudest_25_ms_are_found_wherever_they_begin(tmp_path: Path) -> None:
    for at in (0, 1, 200, 399, RATE - 400):
        samples = np.zeros(RATE, np.float32)
        samples[at : at + 400] = tone(-30, 0.025)
        level = measure(AudioRef(path=str(write(tmp_path, f"a{at}", samples))))
        assert level.loudest_db == pytest.approx(-30, abs=0.05)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.sampled_from([8000, 11025, 16000]),
    st.integers(0, 9),
)
def test_where_a_block_ends_makes_no_difference(sizes: list[int], rate: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    samples = (draw.normal(0, 0.1, (sum(sizes), 2)) * (draw.random((sum(sizes), 1)) > 0.5)).astype(np.float32)
    whole, parts = Meter(), Meter()
    whole.add(samples, rate)
    for block in np.split(samples, np.cumsum(sizes)[:-1]):
        parts.add(block, rate)
    for name in ("seconds", "peak_db", "rms_db", "loudest_db", "silent_share"):
        assert getattr(parts.level(), name) == pytest.approx(getattr(whole.level(), name), abs=1e-6), name


def test_what_decoding_counts_is_the_length(tmp_path: Path) -> None:
    row = Example(id="a", audio=AudioRef(path="a.wav"), duration=2.0, texts={"transcribe": "x"}, source="m:2")
    level = Level(4.0, -3.0, -20.0, -10.0, 0.0, 0.0, constant=False)
    assert decoded_drop(row, level, ["x"]).reason == "duration_mismatch"  # type: ignore[union-attr]
    longer = Level(2.3, -3.0, -20.0, -10.0, 0.0, 0.0, constant=False)
    assert decoded_drop(row, longer, ["x"], max_seconds=2.0).reason == "too_long"  # type: ignore[union-attr]
    assert decoded_drop(row, longer, ["x"]) is None


def test_reasons_survive_the_way_between_processes(tmp_path: Path) -> None:
    for error in (NanSamples("a", "b"), InfiniteSamples("a", "b"), AudioError("a", "no such file")):
        again = pickle.loads(pickle.dumps(error))
        assert (reason_of(again), str(again)) == (reason_of(error), str(error))


def test_what_the_system_refuses_is_an_entry_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(tmp_path)
    real = audio.probe

    def refuse(path: str | Path) -> audio.AudioInfo:
        if Path(path).stem == "above":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(audio, "probe", refuse)
    _, ledger = preprocess(source, tmp_path / "clean.tsv")
    assert {d.id: d.reason for d in ledger} == {**EXPECTED, "above": "unreadable_audio"}


def test_one_process_and_several_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path)
    monkeypatch.setattr(decode_pool, "FEWEST", 1)
    written = []
    for workers in (1, 2):
        output = tmp_path / str(workers) / "clean.tsv"
        preprocess(source, output, workers=workers)
        written.append([path.read_bytes() for path in sorted(output.parent.glob("*.tsv"))])
    assert written[0] == written[1]


def test_processes_that_the_system_ends_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "FEWEST", 1)
    monkeypatch.setattr(decode_pool, "decoded", os._exit)
    with pytest.raises(UserError, match="--workers 2: one of the processes was ended"), DecodePool(2) as pool:
        list(pool.levels([1]))  # type: ignore[list-item]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_leaves_nothing_half_written_and_no_process(tmp_path: Path) -> None:
    path = write(tmp_path, "a", speech(29.0))
    cells = {"audio_path": path.name, "duration": 29, "transcript": "hello"}
    source = manifest(tmp_path / "m.tsv", [{"id": f"u{n}", **cells} for n in range(3000)])
    command = [sys.executable, "-m", "training.cli", "preprocess", "--input", str(source), "--workers", "2"]
    run = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out" / "clean.tsv")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the suite in the background lets it ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None and "3,000 clips: each is decoded to its end" in run.stdout.readline()
    time.sleep(2.0)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert said.strip().splitlines()[-1] == "stopped" and "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


def test_preprocess_says_in_one_line_whether_it_decodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "bad", with_value(speech(), np.nan))
    write(tmp_path, "good", speech())
    cells = {"duration": 1.0, "transcript": "hello"}
    source = manifest(
        tmp_path / "m.tsv", [{"id": n, "audio_path": f"{n}.wav", **cells} for n in ("bad", "good")]
    )
    command = ["--input", str(source), "--output", str(tmp_path / "clean.tsv")]

    def said(*more: str) -> tuple[str, int]:
        assert main([*command, *more]) == 0
        return capsys.readouterr().out.splitlines()[0], len(load_manifest(tmp_path / "clean.tsv"))

    line = "2 clips: each is decoded to its end (--no_decode reads the headers only, which is faster)"
    assert said() == (line, 1)
    assert said("--decode") == ("2 clips: each is decoded to its end", 1)
    assert said("--no_decode") == ("2 clips: their headers are read, none is decoded", 2)
    monkeypatch.setattr(decode_pool, "DECODE_BELOW", 2)
    line = (
        "2 clips: their headers are read, none is decoded because they are 2 or more "
        "(--decode decodes them, which finds more damage)"
    )
    assert said() == (line, 2)
    assert said("--decode")[1] == 1
    assert said("--skip_audio_check")[1] == 2
    with pytest.raises(UserError, match="--decode: --skip_audio_check"):
        main([*command, "--decode", "--skip_audio_check"])
