"""Times for a split: kept and dropped utterances, going on after a kill, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctc_assets
import numpy as np
import pytest
import speech_files
import whisper_assets
from hypothesis import given
from hypothesis import strategies as st

from training.alignment import labelling
from training.alignment.generate import FILE, LEDGER
from training.alignment.labelling import record_of, timing_problem, word_error_rate
from training.alignment.parts import RECORDS, Parts, Record
from training.alignment.rows import load_rows
from training.alignment.teacher import Clip, NoTimes, Timed
from training.alignment.teachers import load_teacher
from training.base.errors import UserError
from training.cli import timestamps as generate_timestamps
from training.data.example import AudioRef, Example, SpokenWord
from training.data.manifest import load_manifest

ROOT = Path(__file__).parents[2]
CLIPS = 40


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CTC model that knows nothing, and clips of noise with sentences that it can write."""
    folder = tmp_path_factory.mktemp("project")
    ctc_assets.saved(ctc_assets.tiny("fastconformer"), folder / "model")
    rows = []
    for n in range(CLIPS):
        speech_files.sound(folder / "clips" / f"{n}.wav", 1.0 + 0.05 * n, 16_000, seed=n)
        rows.append(
            {
                "id": f"u{n}",
                "audio_path": f"clips/{n}.wav",
                "duration": f"{1.0 + 0.05 * n:g}",
                "transcript": ctc_assets.TEXTS[n % 3],
                "speaker": f"s{n % 2}",
                "language": "vi",
                "split": "dev" if n == 4 else "train",
            }
        )
    speech_files.manifest(folder / "manifest.tsv", rows)
    return folder


def arguments(project: Path, output: Path, *more: str) -> list[str]:
    given = ["--data", str(project / "manifest.tsv"), "--split", "train", "--output", str(output)]
    return [*given, "--model", str(project / "model"), "--max-wer", "9", *more]


def command(project: Path, output: Path, *more: str) -> list[str]:
    script = str(ROOT / "training" / "scripts" / "generate_timestamps.py")
    return [sys.executable, script, *arguments(project, output, *more)]


def read(output: Path) -> dict[str, Any]:
    return json.loads((output / "train" / FILE).read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """The result of a call that nothing disturbs."""
    assert generate_timestamps.main(arguments(project, project / "whole", "--batch-seconds", "0.1")) == 0
    return project / "whole"


def test_the_manifest_holds_the_references_words(project: Path, whole: Path) -> None:
    content = read(whole)
    wanted = [n for n in range(CLIPS) if n != 4]
    assert {name: content[name] for name in ("version", "model", "split", "max_wer", "kept", "dropped")} == {
        "version": 1,
        "model": str(project / "model"),
        "split": "train",
        "max_wer": 9.0,
        "kept": CLIPS - 1,
        "dropped": 0,
    }
    assert [sample["id"] for sample in content["samples"]] == [f"u{n}" for n in wanted]
    for n, sample in zip(wanted, content["samples"], strict=True):
        assert sample["text"] == ctc_assets.TEXTS[n % 3]
        assert [word["word"] for word in sample["words"]] == ctc_assets.TEXTS[n % 3].split()
        assert sample["audio_path"] == f"../../clips/{n}.wav"
        assert (sample["speaker"], sample["language"]) == (f"s{n % 2}", "vi")
        assert sample["duration"] == pytest.approx(1.0 + 0.05 * n)
    assert (whole / "train" / LEDGER).read_text() == "id\treason\tdetail\n"


def test_the_manifest_is_data_for_training(project: Path, whole: Path) -> None:
    rows = load_manifest(whole / "train" / FILE, check_files=True)
    assert len(rows) == CLIPS - 1
    assert rows.waveform(0, 16_000).shape == (16_000,)
    sample = read(whole)["samples"][0]
    assert [[word.text, word.start, word.end] for word in rows[0].words] == [
        [word["word"], word["start"], word["end"]] for word in sample["words"]
    ]


def test_several_processes_and_threads_give_the_same(project: Path, whole: Path, tmp_path: Path) -> None:
    output = project / "parallel"
    more = ("--batch-seconds", "0.1", "--parallel", "2", "--fast")
    done = subprocess.run(command(project, output, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (output / "train" / FILE).read_bytes() == (whole / "train" / FILE).read_bytes()


def test_a_killed_run_goes_on_and_gives_the_same(project: Path, whole: Path) -> None:
    """Killed as soon as some utterances are on disk; the last line is cut as a kill in its middle would."""
    output = project / "killed"
    records = output / "train" / RECORDS
    running = subprocess.Popen(command(project, output, "--batch-seconds", "0.1"), stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (records.exists() and records.stat().st_size):
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    found = records.read_bytes()
    assert found and not (output / "train" / FILE).exists()
    records.write_bytes(found[:-40])
    assert generate_timestamps.main(arguments(project, output, "--batch-seconds", "0.1")) == 0
    assert (output / "train" / FILE).read_bytes() == (whole / "train" / FILE).read_bytes()
    ids = [json.loads(line)["id"] for line in records.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == CLIPS - 1


def test_records_survive_a_cut_at_any_byte(tmp_path: Path) -> None:
    word = SpokenWord(text="chào", start=0.1, end=0.2, confidence=0.5)
    records = [Record(f"u{n}", (word,), 0.25) for n in range(3)] + [Record("u3", reason="x", detail="y: ế")]
    Parts(tmp_path, {}).add(records)
    content = (tmp_path / RECORDS).read_bytes()
    ends = [n + 1 for n, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        (tmp_path / RECORDS).write_bytes(content[:cut])
        parts = Parts(tmp_path, {})
        assert list(parts.records.values()) == records[: sum(end <= cut for end in ends)]
        parts.add(records)
        assert (tmp_path / RECORDS).read_bytes() == content


def test_another_threshold_needs_no_second_hearing(
    project: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(labelling, "load_teacher", lambda *args, **kwargs: pytest.fail("heard again"))
    before = (whole / "train" / FILE).read_bytes()
    again = [*arguments(project, whole), "--max-wer", "0"]
    assert generate_timestamps.main(again) == 1  # nothing is left
    assert "misheard" in capsys.readouterr().out
    content = read(whole)
    ledger = (whole / "train" / LEDGER).read_text().splitlines()
    assert (content["kept"], content["dropped"], content["samples"]) == (0, CLIPS - 1, [])
    assert ledger[1].startswith("u0\tmisheard\tWER ") and ledger[1].endswith(", at most 0")
    assert generate_timestamps.main(arguments(project, whole)) == 0
    assert (whole / "train" / FILE).read_bytes() == before


def test_other_settings_are_refused_unless_forced(project: Path, tmp_path: Path) -> None:
    parts = Parts(tmp_path, {"model": "a", "data": "x"})
    parts.add([Record("u")])
    with pytest.raises(UserError, match=r"model 'a' → 'b'.*--force"):
        Parts(tmp_path, {"model": "b", "data": "x"})
    assert set(Parts(tmp_path, {"model": "a", "data": "x"}).records) == {"u"}
    assert Parts(tmp_path, {"model": "b", "data": "x"}, force=True).records == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    Parts(tmp_path, {}).add([Record("u")])
    with (tmp_path / RECORDS).open("a") as handle:
        handle.write('{"id": 7}\n')
    with pytest.raises(UserError, match=rf"{RECORDS}:2: damaged"):
        Parts(tmp_path, {})


def test_what_has_no_times_is_in_the_ledger(project: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    speech_files.sound(tmp_path / "good.wav", 2.0, 16_000)
    base = {"duration": "2", "language": "vi"}
    rows = [
        {**base, "id": "good", "audio_path": "good.wav", "transcript": "xin chào"},
        {**base, "id": "broken", "audio_path": "broken.wav", "transcript": "xin chào"},
        {**base, "id": "missing", "audio_path": "nowhere.wav", "transcript": "xin chào"},
        {**base, "id": "dots", "audio_path": "good.wav", "transcript": "…"},
        {**base, "id": "empty", "audio_path": "good.wav", "transcript": ""},
        {**base, "id": "cyrillic", "audio_path": "good.wav", "transcript": "xin мир"},
        {**base, "id": "long", "audio_path": "good.wav", "transcript": "xin chào " * 200},
        {**base, "id": "stated", "audio_path": "good.wav", "transcript": "xin chào", "duration": "9"},
    ]
    data = speech_files.manifest(tmp_path / "rows.tsv", rows)
    given = ["--data", str(data), "--split", "train", "--output", str(tmp_path / "out")]
    assert generate_timestamps.main([*given, "--model", str(project / "model"), "--max-wer", "9"]) == 0
    lines = [line.split("\t") for line in (tmp_path / "out" / "train" / LEDGER).read_text().splitlines()[1:]]
    assert [(name, reason) for name, reason, _ in lines] == [
        ("broken", "unreadable_audio"),
        ("missing", "unreadable_audio"),
        ("dots", "empty_text"),
        ("empty", "empty_text"),
        ("cyrillic", "no_times"),
        ("long", "no_times"),
        ("stated", "duration_mismatch"),
    ]
    details = {name: detail for name, _, detail in lines}
    assert details["cyrillic"].startswith(f"{data}:7: 'мир' cannot be written")
    assert [sample["id"] for sample in read(tmp_path / "out")["samples"]] == ["good"]


def said(text: str, start: float, end: float) -> SpokenWord:
    return SpokenWord(text=text, start=start, end=end, confidence=0.5)


def test_a_word_without_a_time_drops_its_utterance() -> None:
    """It is never given a share of its neighbours' time."""
    example = Example(
        id="u", audio=AudioRef(path="u.wav"), duration=2.0, texts={"transcribe": "a b"}, source="m:2"
    )
    clip = Clip(example, np.zeros(1, dtype=np.float32))
    good, empty = said("a", 0.1234, 0.5), said("b", 0.5, 0.5)
    record = record_of(clip, Timed((good, empty), "a b"))
    assert record == Record("u", reason="no_times", detail="m:2: no time was found for 'b' (0.5–0.5 s)")
    assert timing_problem([said("a", 0.5, 0.9), said("b", 0.4, 1.0)]) is not None
    assert record_of(clip, Timed((good,), "a c")).wer == 0.5
    assert record_of(clip, Timed((good,), "a b")).words == (said("a", 0.123, 0.5),)
    assert record_of(clip, NoTimes("why")).detail == "m:2: why"


@given(
    words=st.lists(st.sampled_from("abc"), min_size=1, max_size=6), others=st.lists(st.sampled_from("abc"))
)
def test_the_word_error_rate_is_a_share_of_the_references_words(
    words: list[str], others: Sequence[str]
) -> None:
    example = Example(id="u", audio=AudioRef(path="u"), duration=1.0, texts={"transcribe": " ".join(words)})
    assert word_error_rate(example, " ".join(words).upper() + "!") == 0.0
    assert word_error_rate(example, "") == 1.0
    assert 0 <= word_error_rate(example, " ".join(others)) <= max(len(words), len(others)) / len(words)


def test_whisper_labels_by_the_command_too(tmp_path: Path) -> None:
    architecture = whisper_assets.tiny(task="transcribe")
    ctc_assets.saved(architecture, tmp_path / "whisper")
    speech_files.sound(tmp_path / "a.wav", 2.0, 16_000)
    row = {"audio_path": "a.wav", "duration": "2", "transcript": "xin chào các bạn", "language": "vi"}
    data = speech_files.manifest(tmp_path / "rows.jsonl", [row])
    base = ["--data", str(data), "--split", "dev", "--model", str(tmp_path / "whisper"), "--max-wer", "99"]
    for name, more in (("batched", []), ("native", ["--use-native"])):
        status = generate_timestamps.main([*base, "--output", str(tmp_path / name), *more])
        content = json.loads((tmp_path / name / "dev" / FILE).read_text())
        assert content["kept"] + content["dropped"] == 1
        assert status == 1 - content["kept"]  # random attention may give a word no frame
        for sample in content["samples"]:
            assert [word["word"] for word in sample["words"]] == ["xin", "chào", "các", "bạn"]


def test_models_that_cannot_tell_times_are_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--use-native: .* is a CTC model"):
        load_teacher(str(project / "model"), native=True)
    with pytest.raises(UserError, match=r"--model: 'openai/whisper-tiny' cannot be loaded"):
        load_teacher("tiny")
    with pytest.raises(UserError, match=r"no config\.json"):
        load_teacher(str(tmp_path))
    with pytest.raises(UserError, match="--device nonsense"):
        load_teacher(str(project / "model"), device="nonsense")


def test_a_batch_and_data_that_cannot_be_are_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch-seconds -1: more than 0"):
        generate_timestamps.main(arguments(project, tmp_path / "out", "--batch-seconds", "-1"))
    with pytest.raises(UserError, match=r"--data nowhere: no such file or folder"):
        load_rows(Path("nowhere"), "train")


def test_nothing_with_times_is_no_success(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech_files.sound(tmp_path / "good.wav", 2.0, 16_000)
    row = {"id": "a", "audio_path": "good.wav", "duration": "2", "language": "vi", "transcript": "мир"}
    data = speech_files.manifest(tmp_path / "rows.tsv", [row])
    given = ["--data", str(data), "--split", "train", "--output", str(tmp_path / "out")]
    assert generate_timestamps.main([*given, "--model", str(project / "model")]) == 1
    assert "no utterance has word times" in capsys.readouterr().err


def test_rows_of_a_split(project: Path, tmp_path: Path) -> None:
    assert load_rows(project / "manifest.tsv", "dev").ids == ["u4"]
    with pytest.raises(UserError, match=r"--split test: .*no such rows \(splits: dev, train\)"):
        load_rows(project / "manifest.tsv", "test")


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_a_split_is_a_name(project: Path, tmp_path: Path, name: str) -> None:
    given = arguments(project, tmp_path / "out")
    given[given.index("--split") + 1] = name
    with pytest.raises(UserError, match="the name of a split"):
        generate_timestamps.main(given)
    assert not (tmp_path / "out").exists()


def test_a_tree_of_librispeech(project: Path, tmp_path: Path) -> None:
    files = pytest.importorskip("librispeech_files")
    folder = files.tree(tmp_path, "dev-clean", seconds=2.0)
    (folder / "84" / "121550" / "84-121550-0000.flac").write_bytes(b"no sound")
    given = ["--data", str(tmp_path), "--split", "dev-clean", "--output", str(tmp_path / "timestamps")]
    assert generate_timestamps.main([*given, "--model", str(project / "model"), "--max-wer", "9"]) == 0
    output = tmp_path / "timestamps" / "dev-clean"
    content = json.loads((output / FILE).read_text(encoding="utf8"))
    assert (content["kept"], content["dropped"]) == (5, 1)
    first = content["samples"][0]
    path = load_manifest(output / FILE, check_files=True)[0].audio.path
    assert Path(path).resolve().is_relative_to(tmp_path / "LibriSpeech" / "dev-clean")
    assert (first["language"], first["text"]) == ("en", " ".join(word["word"] for word in first["words"]))
    assert "84-121550-0000" in (output / LEDGER).read_text()
