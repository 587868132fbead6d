"""Train, evaluate and transcribe as functions: what they return, raise, write and leave as it was."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tone_project
import torch
from transformers.utils import logging as chatter

import polyvox
import training as pv
from training.base.errors import Lines, handled
from training.cli import evaluate as evaluate_command
from training.engine.fit import Stopped

ROOT = Path(__file__).parents[2]
OVERRIDES = ["evaluation.resamples=100", "evaluation.silence_probes=false"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tone project; its configuration trains for 20 steps."""
    folder = tmp_path_factory.mktemp("tones")
    tone_project.make(folder, steps=20)
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> pv.FinishedRun:
    """A short run."""
    return pv.train(pv.load_config(project / "tones.yaml", OVERRIDES))


def config(project: Path, output: Path, *overrides: str) -> Any:
    """The configuration with another folder for the run."""
    return pv.load_config(project / "tones.yaml", [*OVERRIDES, f"output.dir={output}", *overrides])


def handlers() -> list[Any]:
    """What Ctrl-C and SIGTERM do."""
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def same_figures(report: Any) -> dict[str, Any]:
    """An evaluation's report, as JSON holds it, without what the clock says."""
    return {
        key: value for key, value in json.loads(json.dumps(report)).items() if key not in ("run", "speed")
    }


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Ctrl-C is sent when the first step is logged."""

    def send(record: logging.LogRecord, text: str) -> None:
        if text.startswith("step      1/"):
            os.kill(os.getpid(), signal.SIGINT)

    with handled(Lines(send)):
        yield


def test_both_packages_give_the_same_objects() -> None:
    for name in pv.__all__:
        assert getattr(polyvox, name) is getattr(pv, name), name
        assert name in dir(pv) and name in dir(polyvox)
    assert polyvox.__version__ == pv.__version__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pv.nothing  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = polyvox.nothing  # type: ignore[attr-defined]


def test_no_module_has_the_name_of_a_public_function() -> None:
    """An import of ``training/evaluate.py`` would put the module in the function's place."""
    modules = {path.stem for path in (ROOT / "training").iterdir()}
    assert modules.isdisjoint(pv.__all__)


def test_a_run_is_returned_and_can_be_opened_again(run: pv.FinishedRun, project: Path) -> None:
    assert run.folder == project / "run" == Path(run)
    assert run.results == json.loads((run.folder / "train_results.json").read_text(encoding="utf8"))
    assert repr(run).startswith(f"FinishedRun('{run.folder}': 20 steps in ")
    assert run.history["loss"].dropna().size == 1
    again = pv.load_run(run.folder)
    assert (again.folder, again.results) == (run.folder, run.results)
    assert again.config.to_yaml() == run.config.to_yaml()


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, run: pv.FinishedRun) -> None:
    with pytest.raises(pv.UserError, match=r"no config.yaml, so no finished run"):
        pv.load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(run.config.to_yaml(), encoding="utf8")
    with pytest.raises(pv.UserError, match=r"no train_results.json, so no finished run"):
        pv.load_run(tmp_path)


def test_one_override_may_be_a_text(project: Path) -> None:
    assert pv.load_config(str(project / "tones.yaml"), "training.max_steps=7").training.max_steps == 7


def test_an_earlier_run_is_not_written_over(run: pv.FinishedRun) -> None:
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(pv.UserError, match="already holds files"):
        pv.train(run.config)
    with pytest.raises(pv.UserError, match="contradict each other"):
        pv.train(run.config, resume=True, fresh=True)
    assert sorted(run.folder.rglob("*")) == before


def test_a_path_in_place_of_a_configuration_is_the_users_mistake(project: Path) -> None:
    with pytest.raises(pv.UserError, match=r"of type str, not a configuration; give what load_config"):
        pv.train(str(project / "tones.yaml"))  # type: ignore[arg-type]


def test_a_split_that_does_not_exist_is_the_users_mistake(run: pv.FinishedRun) -> None:
    with pytest.raises(pv.UserError, match=r"split: 'tset' is none of train, dev, test"):
        pv.evaluate(run, split="tset")  # type: ignore[arg-type]


def test_a_configuration_without_a_model_is_refused(run: pv.FinishedRun) -> None:
    with pytest.raises(pv.UserError, match="no model: block"):
        pv.train(run.config.model_copy(update={"model": None}))


def test_training_prints_nothing_and_leaves_the_process_as_it_was(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chatter.set_verbosity_info()
    threads = torch.get_num_threads()
    before = (handlers(), torch.get_num_threads(), chatter.get_verbosity(), chatter.is_progress_bar_enabled())
    try:
        torch.set_num_threads(2)
        pv.train(config(project, tmp_path / "run", "training.max_steps=1"))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(threads)
        after = (
            handlers(),
            torch.get_num_threads(),
            chatter.get_verbosity(),
            chatter.is_progress_bar_enabled(),
        )
        assert after == before
    finally:
        chatter.set_verbosity_warning()
    assert capsys.readouterr().out == ""
    assert logging.getLogger("training").level == logging.NOTSET


def test_what_is_left_out_is_a_warning(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = (project / "train.csv").read_text(encoding="utf8").splitlines()
    table = tmp_path / "train.csv"
    table.write_text("\n".join([*rows, "gone,gone.wav,1.0,a e,[],tr0,even"]) + "\n", encoding="utf8")
    pv.train(
        config(
            project,
            tmp_path / "run",
            "training.max_steps=1",
            f"data.train={table}",
            f"data.audio_root={project}",
            "data.max_dropped_share=0.1",
        )
    )
    warning, *_ = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warning.startswith("train: 1 of 241 utterances cannot be used")


def test_an_interrupt_saves_and_raises_and_the_run_can_go_on(
    project: Path, tmp_path: Path, interrupted: None
) -> None:
    settings = config(project, tmp_path / "run", "training.max_steps=4", "training.logging_steps=1")
    before = handlers()
    with pytest.raises(Stopped) as stopped:
        pv.train(settings)
    assert stopped.value.number == signal.SIGINT
    assert stopped.value.__notes__ == [f"saved in {tmp_path / 'run'}; go on with resume=True"]
    assert handlers() == before
    with pytest.raises(pv.UserError, match="no finished run"):
        pv.load_run(tmp_path / "run")
    (saved,) = (tmp_path / "run").glob("checkpoint-*")
    run = pv.train(settings, resume=True)
    assert run.results["steps"] == 4
    assert run.results["resumed_from"] == str(saved)


def test_training_in_another_thread_leaves_signals_alone(project: Path, tmp_path: Path) -> None:
    before, found = handlers(), []
    settings = config(project, tmp_path / "run", "training.max_steps=2")
    thread = threading.Thread(target=lambda: found.append(pv.train(settings)))
    thread.start()
    thread.join(timeout=120)
    assert [run.results["steps"] for run in found] == [2]
    assert handlers() == before


def test_an_evaluation_finds_what_the_command_writes(
    run: pv.FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.folder.parent.rglob("*"))
    scores = pv.evaluate(run)
    assert sorted(run.folder.parent.rglob("*")) == before
    assert scores.written == () and scores.swap_test is None and len(scores.dropped) == 0
    assert capsys.readouterr().out == ""
    assert evaluate_command.main(["--model_dir", str(run.folder), "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    opening = [
        "60 of 60 utterances can be scored",
        "device ",
        "data        test split: 60 utter",
        "parameters  ",
    ]
    assert [line.startswith(begin) for line, begin in zip(lines, opening, strict=False)] == [True] * 4
    assert lines[4] == f"{run.folder}, test split:"
    assert lines[-2].startswith("written: ") and lines[-1].startswith("next: polyvox charts")
    diagnosis = next(n for n, line in enumerate(lines) if line.startswith("diagnosis of "))
    report = json.loads((tmp_path / "run_metrics.json").read_text(encoding="utf8"))
    assert same_figures(scores.report) == same_figures(report)
    # As the command prints them, but for the last line, the speed.
    assert str(scores).splitlines()[:-1] == lines[5 : diagnosis - 1]


def test_scores_have_values_intervals_and_a_table(run: pv.FinishedRun) -> None:
    scores = pv.evaluate(pv.load_model(run), split="dev", overrides="resamples=50")
    found = scores.report["scores"]["wer"]
    assert scores.report["intervals"]["resamples"] == 50
    assert scores.wer == pv.Score(found["value"], (found["low"], found["high"]), 60)
    assert str(scores.wer) in repr(scores)
    table = scores.table
    assert len(table) == 60 and table is scores.table
    assert {"id", "task", "reference", "hypothesis", "edits"} <= set(table.columns)
    assert 100 * table["edits"].sum() / table["words"].sum() == pytest.approx(scores.wer.value)
    assert scores.cer.interval[0] <= scores.cer.value <= scores.cer.interval[1]
    for name in ("bleu", "chrf"):
        with pytest.raises(AttributeError, match="no text of its task was scored; there are wer, cer"):
            getattr(scores, name)


def test_an_undefined_score_is_not_a_number() -> None:
    score = pv.Score.of({"value": None, "low": None, "high": None, "rows": 0})
    assert math.isnan(score.value) and all(map(math.isnan, score.interval))
    assert str(score) == "–"


def test_results_are_written_where_a_folder_is_given(run: pv.FinishedRun, tmp_path: Path) -> None:
    scores = pv.evaluate(run, split="dev", name="mine", output=tmp_path)
    assert scores.written == (tmp_path / "mine_metrics.json", tmp_path / "mine_predictions.csv")
    assert all(path.is_file() for path in scores.written)
    with pytest.raises(pv.UserError, match="must be a name"):
        pv.evaluate(run, name="a/b", output=tmp_path)


def test_what_is_not_scored_is_listed_and_too_much_of_it_is_an_error_line(
    run: pv.FinishedRun, project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The command ends with status 1 then; the function returns the scores of the others."""
    head, *rows = (project / "test.csv").read_text(encoding="utf8").splitlines()
    lines = [
        head.replace("transcript", "sentence"),
        *rows[:4],
        rows[4].replace(rows[4].split(",")[1], "gone.wav"),
    ]
    table = tmp_path / "few.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf8")
    given: dict[str, Any] = {"audio_root": project, "columns": {"transcript": "sentence"}, "output": tmp_path}
    scores = pv.evaluate(run, manifest=table, **given)
    assert len(scores.dropped) == 1 and scores.too_many_dropped
    assert len(scores.table) == 4
    assert scores.written[0] == tmp_path / "run_dropped.tsv" and all(
        path.is_file() for path in scores.written
    )
    (error,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert error.startswith("error: 1 of 5 utterances were not scored, more than data.max_dropped_share")
    table.write_text("\n".join([*lines[:1], lines[-1]]) + "\n", encoding="utf8")
    with pytest.raises(pv.UserError, match="no utterance can be scored"):
        pv.evaluate(run, manifest=table, **given)


def test_the_results_of_another_run_stay(run: pv.FinishedRun, project: Path, tmp_path: Path) -> None:
    other = pv.train(config(project, tmp_path / "b" / "run", "training.max_steps=1"))
    first = pv.evaluate(run, output=tmp_path / "results")
    second = pv.evaluate(other, output=tmp_path / "results")
    assert {path.name for path in first.written} == {"run_metrics.json", "run_predictions.csv"}
    assert {path.name for path in second.written} == {"run_b_metrics.json", "run_b_predictions.csv"}


def test_a_log_file_in_the_folder_of_the_run_is_not_in_its_way(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = pv.train(config(project, folder, "training.max_steps=1", f"output.log_file={folder}/run.log"))
    assert "vocabulary: " in (run.folder / "run.log").read_text(encoding="utf8")


def test_other_data_are_accepted_only_where_a_run_goes_on(run: pv.FinishedRun) -> None:
    with pytest.raises(pv.UserError, match="accept_changed_data belongs to resume"):
        pv.train(run.config, accept_changed_data=True)


def test_what_cannot_be_evaluated_is_an_exception(run: pv.FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(pv.UserError, match=r"no config.json, so no model"):
        pv.evaluate(tmp_path)
    with pytest.raises(pv.UserError, match=r"no config.json, so no model"):
        pv.load_model(str(tmp_path))
    with pytest.raises(pv.UserError, match=r"resample=3: must be key=value; did you mean resamples"):
        pv.evaluate(run, overrides=["resample=3"])


def test_one_file_is_transcribed_by_a_call(run: pv.FinishedRun, project: Path) -> None:
    transcriber = pv.Transcriber(run)
    one = transcriber(project / "test0.wav")
    assert one == pv.transcribe(project / "test0.wav", model=run)[0]
    files = [project / "test0.wav", str(project / "test1.wav")]
    found = transcriber.transcribe_batch(files)
    assert [row["audio"] for row in found] == list(map(str, files))
    assert [row["text"] for row in found] == [two.text for two in transcriber.transcribe(files)]
    with pytest.raises(pv.UserError, match=r"none\.wav"):
        transcriber("none.wav")
