"""Options of the evaluation: refused before a model is loaded, and settings other than the run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config.schema import Evaluation
from training.errors import UserError
from training.scripts import run_evaluation, transcribe
from training.scripts.run_evaluation import rescored


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
