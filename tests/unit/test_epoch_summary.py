"""The summary after each epoch: for evaluations at its end, between steps and none at all."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_assets import losses, make_trainer
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.base.errors import DRAWN, LogFile, handled, shown
from training.engine import epoch_summary
from training.engine.callbacks import LoggingCallback
from training.engine.epoch_summary import EpochSummaryCallback

EACH = 4
"""Steps of an epoch: seven clips in batches of two."""


class Clock:
    """Ten seconds pass between two looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def trained(folder: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A training, its summaries and the lines of all callbacks."""
    summaries: list[str] = []
    log = LogFile(folder / "run.log")
    lines = LoggingCallback()

    def say(plain: str, drawn: str) -> None:
        summaries.append(plain)
        lines.say(plain, drawn)

    callbacks = (EpochSummaryCallback(say, Clock()), lines)
    with handled(log):
        trainer = make_trainer(folder, callbacks=callbacks, **options)
        trainer.train()
    return trainer, summaries, log.path.read_text(encoding="utf8").splitlines()


def rows(summary: str) -> dict[str, str]:
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in summary.splitlines()[1:])


def test_an_epoch_with_its_evaluation_is_summed_up_where_it_ends(tmp_path: Path) -> None:
    trainer, summaries, lines = trained(
        tmp_path,
        steps=2 * EACH,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_cer",
        greater_is_better=False,
    )
    assert [one.splitlines()[0] for one in summaries] == [
        "epoch 1 of 2, step 4 of 8",
        "epoch 2 of 2, step 8 of 8",
    ]
    scored = [row for row in trainer.state.log_history if "eval_loss" in row]
    best = min((row["eval_cer"], row["step"]) for row in scored)
    for number, (summary, figures) in enumerate(zip(summaries, scored, strict=True)):
        told = rows(summary)
        mean = sum(losses(trainer)[number * EACH : (number + 1) * EACH]) / EACH
        assert float(told["train loss"]) == pytest.approx(mean, abs=1e-4)
        assert float(told["dev loss"]) == pytest.approx(figures["eval_loss"], abs=1e-4)
        assert told["WER"] == f"{figures['eval_wer']:.2f} %" and told["CER"] == f"{figures['eval_cer']:.2f} %"
        assert float(told["learning rate"]) > 0 and "of it in the evaluation" in told["time"]
    assert rows(summaries[-1])["best model"] == (
        f"{tmp_path / f'checkpoint-{best[1]}'} (CER {best[0]:.2f} %, step {best[1]})"
    )
    assert sum("evaluation  " in line for line in lines) == 0, "each figure is said once"
    trainer.evaluate()  # after the training there is no summary


def test_evaluations_between_steps_keep_their_lines(tmp_path: Path) -> None:
    _, summaries, lines = trained(tmp_path, steps=6, eval_strategy="steps", eval_steps=2)
    assert [one.splitlines()[0] for one in summaries] == [
        "epoch 1 of 2, step 4 of 6",
        "epoch 2 of 2, up to 1.5, step 6 of 6",
    ]
    assert sum("evaluation  " in line for line in lines) == 3
    assert rows(summaries[0])["time"].endswith("of it in 2 evaluations")
    assert "best model" not in rows(summaries[0])  # nothing is saved


def test_short_epochs_without_an_evaluation_are_summed_up_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_summary, "SHORT", 20.0)
    trainer, summaries, _ = trained(
        tmp_path, steps=3 * EACH, logging_steps=100, save_strategy="steps", save_steps=6
    )
    # One look at its begin and one at each end; 20 s have passed at the second end.
    assert [one.splitlines()[0] for one in summaries] == [
        "epochs 1–2 of 3, step 8 of 12",
        "epoch 3 of 3, step 12 of 12",
    ]
    assert rows(summaries[0])["checkpoint"] == str(tmp_path / "checkpoint-6")
    # A loss is logged for a summary, although training.logging_steps asks for none.
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [8, 12]
    assert float(rows(summaries[1])["train loss"]) == pytest.approx(losses(trainer)[1], abs=1e-4)


def test_several_ranks_log_alike_whatever_their_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that logged by itself would wait for the others' losses for ever."""
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    asked = []
    for evaluations, seconds in ((0, 10_000.0), (0, 0.0), (1, 10_000.0), (1, 0.0)):
        now = [0.0]
        callback = EpochSummaryCallback(lambda plain, drawn: None, lambda now=now: now[0])  # type: ignore[misc]
        state, control = TrainerState(num_train_epochs=3, max_steps=30, epoch=0.0), TrainerControl()
        callback.on_train_begin(args, state, control)
        callback.on_epoch_begin(args, state, control)
        if evaluations:
            callback.on_log(args, state, control, logs={"eval_loss": 2.0})
        state.global_step, state.epoch, now[0] = 10, 1.0, seconds
        callback.on_epoch_end(args, state, control)
        asked.append(control.should_log)
    assert asked == [False, False, True, True]


def test_scores_of_domains_stand_behind_those_of_all(tmp_path: Path) -> None:
    said: list[str] = []
    callback = EpochSummaryCallback(lambda plain, drawn: said.append(plain), Clock())
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], eval_strategy="epoch")
    state, control = TrainerState(num_train_epochs=3, max_steps=30, epoch=0.0), TrainerControl()
    callback.on_train_begin(args, state, control)
    callback.on_epoch_begin(args, state, control)
    state.global_step, state.epoch = 10, 1.0
    callback.on_epoch_end(args, state, control)
    assert control.should_log
    scores = {
        "loss": 2.0,
        "cer_child": 9.0,
        "cer_spaces_child": 8.0,
        "cer": 5.5,
        "cer_spaces": 6.0,
        "onset_mae": 41.2,
    }
    callback.on_log(args, state, control, logs={f"eval_{name}": value for name, value in scores.items()})
    callback.on_epoch_begin(args, state, control)
    told = rows(said[0])
    assert list(told) == ["dev loss", "CER", "CER with spaces", "onset error", "child", "time"]
    assert told["child"] == "CER 9.00 %, CER with spaces 8.00 %" and told["onset error"] == "41 ms"


def test_a_terminal_shows_a_tree_and_the_log_file_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with shown():
        _, summaries, lines = trained(tmp_path, steps=EACH, eval_strategy="epoch")
    said = capsys.readouterr().out
    assert "\x1b[1mepoch 1 of 1, step 4 of 4\x1b[0m\n├── train loss " in said and "\n└── time " in said
    assert summaries[0].splitlines()[-1] in lines and not any("\x1b" in line for line in lines)
    monkeypatch.setenv("NO_COLOR", "1")
    with shown():
        trained(tmp_path / "plain", steps=EACH, eval_strategy="epoch")
    said = capsys.readouterr().out
    assert "epoch 1 of 1, step 4 of 4\n  train loss " in said and "\x1b" not in said and DRAWN not in said


def test_a_long_evaluation_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.base import progress

    trainer = make_trainer(tmp_path, steps=1)
    monkeypatch.setattr(
        "training.engine.trainer.progress_bar",
        lambda **options: progress.progress_bar(**{**options, "first": 0.0}),
    )
    trainer.evaluate()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evaluation: ")]
    assert (
        told
        and told[0].endswith(" left")
        and f" of {round(sum(trainer.eval_dataset.durations))} s, " in told[0]
    )
