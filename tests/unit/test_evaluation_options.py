"""Options of the evaluation: refused before a model is loaded, and settings other than the run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.api.predicting import rescored
from training.base.errors import UserError
from training.cli import calibrate, inference, publish, transcribe
from training.cli import evaluate as run_evaluation
from training.config.blocks import Evaluation
from training.evaluation.stored import free_name, of_another


def test_settings_other_than_the_runs() -> None:
    run = Evaluation(num_beams=2, max_new_tokens=7)
    given = rescored(
        run, ["num_beams=5", "max_new_tokens=null", "silence_probes=false", "batch_seconds=30.0"]
    )
    assert given == Evaluation(num_beams=5, silence_probes=False, batch_seconds=30.0)
    assert rescored(run, []) == run


@pytest.mark.parametrize(
    ("text", "said"), [("num_beams=0", "num_beams"), ("beams=3", "beams"), ("num_beams", "key=value")]
)
def test_settings_are_checked(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rescored(Evaluation(), [text])


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_beam_width_below_one_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    for parser, needed in (
        (run_evaluation.parser(), ["--model_dir", "m"]),
        (transcribe.parser(), ["--model", "m", "a.wav"]),
    ):
        with pytest.raises(SystemExit) as left:
            parser.parse_args([*needed, "--num_beams", count])
        assert left.value.code == 2
        assert "--num_beams" in capsys.readouterr().err


COMMANDS = (
    (run_evaluation.parser, ("--model_dir", "--model_path"), []),
    (run_evaluation.parser, ("--beam_width", "--num_beams"), ["--model_dir", "m"]),
    (transcribe.parser, ("--model", "--model_dir"), ["a.wav"]),
    (inference.parser, ("--checkpoint", "--model"), ["--audio", "a.wav"]),
    (calibrate.parser, ("--model_dir", "--model_path"), []),
    (publish.parser, ("--licence", "--license"), ["--model_dir", "m", "--repo_id", "o/n"]),
)
"""Parser, two names of one of its options, what else it needs."""


@pytest.mark.parametrize(("parser", "names", "needed"), COMMANDS)
def test_two_names_of_an_option_with_different_values_are_refused(
    parser: Any, names: tuple[str, str], needed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = names
    with pytest.raises(SystemExit) as left:
        parser().parse_args([*needed, first, "3", second, "5"])
    assert left.value.code == 2
    assert f"{first} 3 and {second} 5 name one option; leave out one of them" in capsys.readouterr().err
    for line in ([first, "3", second, "3"], [first, "5", first, "3"]):
        args = parser().parse_args([*needed, *line])
        assert "3" in {str(value) for value in vars(args).values()}


@pytest.mark.parametrize("name", ["a/b", "../b", "a\\b", "/b"])
def test_a_name_that_is_a_path_is_refused_before_anything_is_decoded(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--name .*: must be a name"):
        run_evaluation.main(["--model_dir", str(tmp_path), "--name", name])


@pytest.mark.parametrize(
    "option", [["--swap_test"], ["--manifest", "t.csv"], ["--evaluation", "resamples=200"], ["--name", "x"]]
)
def test_what_only_scores_is_refused_with_files_of_no_split(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{option[0]}: --audio_file only transcribes"):
        run_evaluation.main(["--model_dir", "m", "--audio_file", "a.wav", *option])
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output"):
        run_evaluation.main(
            ["--model_dir", str(tmp_path / "nowhere"), "--output", str(tmp_path / "file/results")]
        )


@pytest.mark.parametrize(
    ("given", "said"), [("resamples=[", "is not a value"), ("resampels=200", "did you mean resamples?")]
)
def test_a_wrong_setting_of_the_evaluation_is_named(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rescored(Evaluation(), [given])


# Names of result files


def evaluated(results: Path, name: str, folder: Path, sha256: str = "a") -> None:
    results.mkdir(exist_ok=True)
    meta = {"model_dir": str(folder), "config_sha256": sha256}
    (results / f"{name}_metrics.json").write_text(json.dumps({"scores": {}, "meta": meta}), encoding="utf8")


def test_results_of_another_run_of_the_same_name_stay(tmp_path: Path) -> None:
    results, runs = tmp_path / "results", [tmp_path / place / "run" for place in "abc"]
    for run in runs:
        run.mkdir(parents=True)
    assert free_name(results, "run", runs[0], "x") == "run"
    evaluated(results, "run", runs[0])
    assert free_name(results, "run", runs[0], "other settings") == "run"
    assert free_name(results, "run", runs[1], "a") == "run_b"
    evaluated(results, "run_c", runs[0])
    assert free_name(results, "run", runs[2], "a") == "run_2"
    assert of_another(results, "run", runs[1], "a") and not of_another(results, "run", runs[0], "a")


def test_a_run_that_was_moved_keeps_its_results(tmp_path: Path) -> None:
    (tmp_path / "new" / "run").mkdir(parents=True)
    evaluated(tmp_path / "results", "run", tmp_path / "old" / "run", "a")
    assert free_name(tmp_path / "results", "run", tmp_path / "new" / "run", "a") == "run"
    assert free_name(tmp_path / "results", "run", tmp_path / "new" / "run", "b") == "run_new"
