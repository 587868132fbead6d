"""Utterances that cannot be decoded: evaluation lists them and scores the rest, training names what takes them out."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import ctc_assets
import numpy as np
import pytest
import soundfile
from speech_files import RATE, manifest
from torch.utils.data import DataLoader

from training import cli
from training.base.errors import UserError, status_of
from training.cli import calibrate
from training.cli import evaluate as run_evaluation
from training.data.dataset import DataError, SpeechDataset
from training.data.manifest import load_manifest
from training.models.architecture import Architecture
from training.registry.checks import Rules
from training.registry.prepare import Settings, prepare
from training.registry.source import load_version


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return ctc_assets.tiny()


@pytest.fixture(scope="module")
def model(architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ctc_assets.saved(architecture, tmp_path_factory.mktemp("model"))


def noise(seconds: float = 0.5) -> np.ndarray:
    return ctc_assets.noise(seconds)


def faults(folder: Path, good: int, text: str = "xin") -> Path:
    """``good`` utterances, then one of each fault."""
    sounds: dict[str, Any] = {f"good{n}": noise() for n in range(good)}
    sounds |= {"nan": np.full(8000, np.nan), "infinite": np.full(8000, np.inf), "silent": np.zeros(8000)}
    sounds |= {"quiet": noise() * 1e-4}
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    (folder / "cut.wav").write_bytes((folder / "nan.wav").read_bytes()[:3000])
    rows = [
        {"id": name, "audio_path": f"{name}.wav", "duration": 0.5, "transcript": text}
        for name in (*sounds, "cut", "missing")
    ]
    return manifest(folder / "m.tsv", rows)


REASONS = {
    "nan": "nan_samples",
    "infinite": "infinite_samples",
    "silent": "digital_silence",
    "quiet": "too_quiet",
    "cut": "unreadable_audio",
    "missing": "missing_audio",
}


def evaluate(model: Path, table: Path, output: Path) -> int:
    return run_evaluation.main(
        ["--model_dir", str(model), "--test_csv", str(table), "--output", str(output), "--name", "r"]
    )


def test_evaluation_lists_faults_and_scores_the_rest(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, faults(tmp_path, 3), tmp_path / "out") == 1
    said = capsys.readouterr()
    first = said.out.splitlines()[0]
    assert first.startswith("3 of 9 utterances can be scored; 6 cannot and are left out: ")
    assert all(f"1 {reason}" in first for reason in REASONS.values())
    assert "error: 6 of 9 utterances were not scored, more than data.max_dropped_share (0.02)" in said.err
    ledger = (tmp_path / "out" / "r_dropped.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert {line.split("\t")[0]: line.split("\t")[1] for line in ledger} == REASONS
    report = json.loads((tmp_path / "out" / "r_metrics.json").read_text(encoding="utf-8"))
    assert report["rows"] == {"transcribe": 3}
    assert report["dropped"] == {
        "utterances": 6,
        "of": 9,
        "share": 6 / 9,
        "max_share": 0.02,
        "too_many": True,
        "reasons": dict.fromkeys(REASONS.values(), 1),
    }


def test_few_faults_are_said_and_end_with_status_0_and_no_old_ledger_stays(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = faults(tmp_path, 60), tmp_path / "out"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:62]) + "\n", encoding="utf-8")  # 60 good, nan
    assert evaluate(model, table, output) == 0
    assert capsys.readouterr().out.startswith(
        "60 of 61 utterances can be scored; 1 cannot and are left out: 1 nan"
    )
    assert (output / "r_dropped.tsv").is_file()
    table.write_text("\n".join(lines[:61]) + "\n", encoding="utf-8")
    assert evaluate(model, table, output) == 0
    assert capsys.readouterr().out.startswith("60 of 60 utterances can be scored\n")
    assert not (output / "r_dropped.tsv").exists()
    assert json.loads((output / "r_metrics.json").read_text(encoding="utf-8"))["dropped"]["utterances"] == 0


def test_where_nothing_can_be_scored_the_ledger_says_why(model: Path, tmp_path: Path) -> None:
    table = faults(tmp_path, 0)
    with pytest.raises(UserError, match=r"no utterance can be scored\n[\s\S]*nan_samples"):
        evaluate(model, table, tmp_path / "out")
    assert len((tmp_path / "out" / "r_dropped.tsv").read_text(encoding="utf-8").splitlines()) == 7


def test_silence_in_which_nothing_is_said_is_scored(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, faults(tmp_path, 1, text="…"), tmp_path / "out") == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("3 of 7 utterances") and "silence" not in first and "quiet" not in first


def test_calibration_leaves_the_same_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model_dir", str(model), "--manifest", str(faults(tmp_path, 2))]
    with pytest.raises(UserError, match="too few"):
        calibrate.main(command)
    assert capsys.readouterr().out.startswith("2 of 8 utterances can be scored; 6 cannot")


def failure(data: SpeechDataset, index: int, workers: int = 0) -> str:
    """What is said when the row ends training, by the command's own way out."""

    def read() -> None:
        list(DataLoader(data, sampler=[index], num_workers=workers, collate_fn=list))

    with pytest.raises(DataError) as caught:
        read()
    assert status_of(read) == 2
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_names_the_row_the_fault_and_a_command_that_mends_it(
    architecture: Architecture,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    table = faults(folder, 2)
    data = SpeechDataset(load_manifest(table), architecture.encode, RATE, min_seconds=0.1, max_seconds=20)
    failure(data, 2, workers)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {table}:4: utterance 'nan': {folder / 'nan.wav'}: holds samples that are")
    command = next(line for line in said.splitlines() if line.startswith("polyvox "))
    words = shlex.split(command)
    assert "Traceback" not in said and "--decode" in words
    monkeypatch.setattr("sys.argv", words)
    assert cli.main(words[1:]) == 0
    clean = load_manifest(folder / "m_decoded.tsv")
    assert clean.ids == ["good0", "good1"]
    assert f"then name {folder / 'm_decoded.tsv'} in place of {table}" in said


def test_the_command_keeps_the_columns_and_texts_of_the_run(
    architecture: Architecture, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "good.wav", noise(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), RATE, subtype="FLOAT")
    cells = {"duration": 0.5, "sentence": "xin", "translation": ""}
    rows = [{"id": name, "path": f"{name}.wav", **cells} for name in ("good", "nan")]
    columns = {"audio_path": "path", "transcript": "sentence"}
    root = tmp_path / "elsewhere"
    table = manifest(root / "m.csv", rows)
    data = SpeechDataset(
        load_manifest(table, columns=columns, audio_root=tmp_path), architecture.encode, RATE, max_seconds=30
    )
    again = pickle.loads(pickle.dumps(data.select([1, 0])))
    command = shlex.split(failure(again, 0).splitlines()[2])
    assert cli.main(command[1:]) == 0
    assert load_manifest(root / "m_decoded.csv").ids == ["good"]


def test_other_sources_say_what_there_is_to_do(architecture: Architecture, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", noise(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), RATE, subtype="FLOAT")
    rows = [
        {"id": name, "audio_path": f"{name}.wav", "transcript": "xin", "split": "train", "speaker": "s"}
        for name in ("good", "nan")
    ]
    source, database = manifest(tmp_path / "m.csv", rows), str(tmp_path / "r.db")
    prepare(Settings(table=source, database=database, rules=Rules(decode=False)))
    split = load_version(database, "v1", "train")
    said = failure(SpeechDataset(split, architecture.encode, RATE), 1)
    assert "r.db[v1/train]:2: utterance 'nan'" in said
    assert "polyvox data prepare --validate" in said and "polyvox preprocess" not in said
