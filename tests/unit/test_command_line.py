"""Misspelt options, choices, paths and keys are answered with what was probably meant; either spelling is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import cli
from training.base.errors import UserError
from training.base.nearest import did_you_mean, nearest_path, path_hint
from training.cli import transcribe
from training.cli.command_line import Parser
from training.cli.overrides import as_options, is_override


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command line that argparse or we refuse says, on one line."""
    try:
        status = cli.main(arguments)
    except SystemExit as left:
        status = left.code
    assert status == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    return said.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train --config a.yaml --dryrun", "unknown option --dryrun; did you mean --dry_run?"),
        ("train --config a.yaml --dry-rnu", "did you mean --dry_run?"),
        ("train --config a.yaml --hardware h10", "no choice is called 'h10'; did you mean h100?"),
        ("evaluate --modle run", "did you mean --model?"),
        ("transcribe a.wav --mdoel run", "unknown option --mdoel; did you mean --model?"),
        ("data perpare", "did you mean prepare?"),
        ("data list --regsitry a.db", "unknown option --regsitry; did you mean --registry?"),
        ("transcribe a.wav --model run --format jsn", "did you mean json?"),
        ("split --manifest a.csv b.csv", "b.csv: not understood here"),
        (
            "doctor --zzzzz",
            "polyvox doctor: unknown option --zzzzz (polyvox doctor --help lists the options)",
        ),
    ],
)
def test_what_was_meant_is_said(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(typed.split(), capsys)


def test_either_spelling_is_one_option_also_of_subcommands() -> None:
    parser = Parser(prog="p")
    parser.add_argument("--dry_run", action="store_true")
    inner = parser.add_subparsers(dest="command").add_parser("one")
    inner.add_argument("--batch-size", type=int)
    assert parser.parse_args(["--dry-run", "one", "--batch_size", "3"]).batch_size == 3
    parser = Parser(prog="p")
    parser.add_argument("--dry_run", action="store_true")
    parser.add_argument("words", nargs="*")
    assert parser.parse_args(["--dry-run", "--", "--dry-run"]).words == ["--dry-run"]


@pytest.mark.parametrize(
    ("command", "spellings", "kept"),
    [
        ("evaluate", ("--model", "--model_dir", "--model_path"), "model_dir"),
        ("evaluate", ("--manifest", "--test_csv"), "test_csv"),
        ("calibrate", ("--model", "--model_dir"), "model_dir"),
        ("publish", ("--model", "--model_dir"), "model_dir"),
        ("check-deployment", ("--model",), "model"),
        ("transcribe", ("--output", "--output_dir"), "output_dir"),
        ("export", ("--manifest", "--check_manifest"), "check_manifest"),
        ("preprocess", ("--manifest", "--input"), "input"),
        ("split", ("--output", "--output_dir"), "output_dir"),
        ("timestamps", ("--manifest", "--data"), "data"),
        ("charts", ("--output", "--charts"), "charts"),
    ],
)
def test_one_vocabulary_and_the_older_names(command: str, spellings: tuple[str, ...], kept: str) -> None:
    from importlib import import_module

    needed = {
        "publish": ["--repo_id", "a/b"],
        "transcribe": ["a.wav", "--model", "m"],
        "export": ["--model", "m", "--output", "o"],
        "preprocess": ["--output", "o.csv"],
        "split": ["--manifest", "m.csv"],
        "timestamps": ["--split", "s", "--output", "o", "--model", "m"],
    }
    parser = import_module(cli.COMMANDS[command][0]).parser()
    for spelling in spellings:
        assert getattr(parser.parse_args([*needed.get(command, []), spelling, "here"]), kept) == Path("here")


def test_near_names_and_none_that_is_far() -> None:
    assert did_you_mean("Trian", ["train", "split"]) == "; did you mean train?"
    assert did_you_mean("zzz", ["train", "split"]) == ""


def test_a_path_is_mended_in_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs" / "demo_ctc").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("")
    assert nearest_path(tmp_path / "dta" / "trian.csv") == tmp_path / "data" / "train.csv"
    assert nearest_path(tmp_path / "data" / "zzzzzzzz.wav") is None
    assert nearest_path(tmp_path / "data" / "none.csv") is None  # a suffix in common is no likeness
    assert nearest_path(tmp_path / "data" / "train.cvs") == tmp_path / "data" / "train.csv"
    monkeypatch.chdir(tmp_path)
    assert path_hint(Path("data/trian.csv")) == "; did you mean data/train.csv?"
    assert path_hint(Path("demo_cct"), among=[Path("outputs")]) == "; did you mean outputs/demo_ctc?"
    assert path_hint(Path("../nowhere/at/all")) == ""


def test_files_and_runs_that_are_not_there_name_the_near_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "demo_ctc").mkdir(parents=True)
    (tmp_path / "clip.wav").write_bytes(b"")
    (tmp_path / "mine.yaml").write_text("model: {type: ctc}\ndata: {train: tabel.csv, dev: null}\n", "utf8")
    (tmp_path / "table.csv").write_text("id\n", "utf8")
    for typed, said in {
        "train --config mnie.yaml": "mnie.yaml: no such file; did you mean mine.yaml?",
        "transcribe clpi.wav --model outputs/demo_ctc": "clpi.wav: no such file; did you mean clip.wav?",
        "transcribe clip.wav --model outputs/demo_cct": "no such folder; did you mean outputs/demo_ctc?",
        "evaluate --model demo_ctc": "demo_ctc: no such folder; did you mean outputs/demo_ctc?",
        "evaluate --model outputs/demo_ctc": "outputs/demo_ctc: no config.json, so no model",
        "preprocess --manifest tabel.csv --output o.csv": "tabel.csv: no such file; did you mean table.csv?",
        "train --model demo_ct": "--model demo_ct: there is no configs/demo_ct.yaml; did you mean demo_ctc?",
        "compare demo_cct b": "demo_cct: no such file or folder; did you mean outputs/demo_ctc?",
    }.items():
        assert said in refused(typed.split(), capsys)


def test_a_data_file_that_is_not_there_names_the_near_one(tmp_path: Path) -> None:
    from training.data.sources.configured import Table

    (tmp_path / "table.csv").write_text("id\n", "utf8")
    source = Table({"train": tmp_path / "tabel.csv", "dev": None, "test": None}, None, {})
    with pytest.raises(
        UserError, match=r"^data\.train: .*tabel\.csv is not there; did you mean .*table\.csv\?$"
    ):
        source.open("train")


def test_keys_are_the_options_that_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        "a.wav",
        "evaluation.num_beams=5",
        "evaluation.fallback=false",
        "evaluation.fallback=true",
        "model.language=ko",
    ]
    assert as_options(given, transcribe.KEYS) == ["a.wav", "--beam_width=5", "--no_fallback", "--language=ko"]
    with pytest.raises(
        UserError, match=r"no use for the key evaluation\.num_beam; did you mean evaluation\.num_beams\?"
    ):
        as_options(["evaluation.num_beam=5"], transcribe.KEYS)
    with pytest.raises(UserError, match="must be true or false"):
        as_options(["evaluation.fallback=maybe"], transcribe.KEYS)
    monkeypatch.chdir(tmp_path)
    assert (
        is_override("evaluation.num_beams=5") and not is_override("--a.b=3") and not is_override("clip.wav")
    )
    Path("a.b=1.wav").write_bytes(b"")
    assert not is_override("a.b=1.wav")


def test_an_evaluation_takes_keys_of_three_blocks_and_no_others() -> None:
    from types import SimpleNamespace
    from typing import Any

    from training.api.predicting import with_settings
    from training.config.load import config_from
    from training.decoding.loading import Trained

    config = config_from({"model": {"type": "ctc"}})
    trained: Any = Trained(SimpleNamespace(), Path("run"), "ctc", config, None)
    asked = ["evaluation.resamples=200", "data.test=other.csv", "audio.channel=left"]
    found: Any = with_settings(trained, asked).config
    assert (found.evaluation.resamples, found.data.test, found.audio.channel) == (
        200,
        Path("other.csv"),
        "left",
    )
    assert found.training == config.training
    with pytest.raises(UserError, match=r"^training\.learning_rate=1: training belongs to training"):
        with_settings(trained, ["training.learning_rate=1"])
    with pytest.raises(UserError, match=r"data\.test=a\.csv: run is no run of ours"):
        with_settings(Trained(SimpleNamespace(), Path("run"), "ctc", None, None), ["data.test=a.csv"])  # type: ignore[arg-type]
