"""What happens beside the steps: history, warnings, hypotheses."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_assets import make_trainer
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.base.errors import Lines, handled
from training.engine.callbacks import (
    AugmentationStartCallback,
    ConvergenceMonitorCallback,
    HypothesisCallback,
    StopSignalCallback,
)


def arguments(folder: Path, **others: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, **{"report_to": [], **others})


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines that the library logs."""
    lines: list[str] = []
    with handled(Lines(lambda record, text: lines.append(text))):
        yield lines


def watch(folder: Path, losses: list[float], history: list[dict[str, float]] | None = None) -> list[str]:
    """What the monitor says of losses that are logged every ten steps."""
    said: list[str] = []
    with handled(Lines(lambda record, text: said.append(text))):
        _watch(folder, losses, history or [])
    return said


def _watch(folder: Path, losses: list[float], before: list[dict[str, float]]) -> None:
    monitor = ConvergenceMonitorCallback(patience=500)
    first = int(before[-1]["step"]) if before else 0
    state = TrainerState(log_history=before)
    monitor.on_train_begin(arguments(folder), state, TrainerControl())
    for number, loss in enumerate(losses, 1):
        state.global_step = first + 10 * number
        monitor.on_log(arguments(folder), state, TrainerControl(), logs={"loss": loss})


def test_500_steps_without_improvement_are_said_once_per_stretch(tmp_path: Path) -> None:
    assert watch(tmp_path, [1.0] * 51) == [
        "warning: the training loss has not improved on 1.0000 for 500 steps; look at the learning rate and at the data"
    ]
    assert len(watch(tmp_path, [1.0] * 101)) == 2


def test_a_signal_while_the_ranks_agree_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks stop at one step: this rank's signal, too late for this step's exchange, is in the next one's."""
    told = StopSignalCallback()
    told.ranks = object()
    sent: list[int] = []

    def exchange(number: torch.Tensor, op: Any, group: Any) -> None:
        sent.append(int(number))
        if len(sent) == 1:
            told._receive(signal.SIGTERM, None)

    monkeypatch.setattr(torch.distributed, "all_reduce", exchange)
    stops = []
    for _ in range(2):
        control = TrainerControl()
        told.on_step_end(arguments(tmp_path), TrainerState(), control)
        stops.append((control.should_save, control.should_training_stop))
    assert sent == [0, signal.SIGTERM] and stops == [(False, False), (True, True)]


def test_a_second_signal_ends_at_once() -> None:
    """Ctrl-C as in any program, so that a notebook survives it; SIGTERM is for the process."""
    told = StopSignalCallback()
    told._receive(signal.SIGTERM, None)
    assert told.received == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        told._receive(signal.SIGINT, None)
    with pytest.raises(SystemExit) as left:
        told._receive(signal.SIGTERM, None)
    assert left.value.code == 128 + signal.SIGTERM


def test_harder_clips_are_announced_and_the_monitor_starts_anew_with_them(
    tmp_path: Path, said: list[str]
) -> None:
    told = AugmentationStartCallback("after_epochs", 2)
    monitor = ConvergenceMonitorCallback(patience=100, anew=(2,))
    state, control = TrainerState(num_train_epochs=4), TrainerControl()
    told.on_train_begin(arguments(tmp_path), state, control)
    for step in range(10, 410, 10):
        state.global_step, state.epoch = step, (step - 10) / 100
        if state.epoch in (0.0, 1.0, 2.0, 3.0):
            told.on_epoch_begin(arguments(tmp_path), state, control)
        state.epoch = step / 100
        # Falls until the clips are harder, and again from the height to which they lift it.
        loss = (1.0 if step <= 200 else 3.0) - 0.002 * step
        monitor.on_log(arguments(tmp_path), state, control, logs={"loss": loss})
    assert said == [
        "epoch 2: the clips are harder from here on (augmentation.after_epochs), and so is the loss"
    ]
    state.num_train_epochs = 2
    told.on_train_begin(arguments(tmp_path), state, control)
    assert said[1:] == [
        "warning: augmentation.after_epochs is 2, and the run ends in epoch 2: it has no effect; lower it or train longer"
    ]


@pytest.mark.parametrize("losses", [[1.0] * 50, [3.0 - 0.01 * i for i in range(200)]])
def test_a_loss_that_falls_or_a_short_wait_is_no_reason_to_warn(tmp_path: Path, losses: list[float]) -> None:
    assert watch(tmp_path, losses) == []


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    history = [{"loss": 1.0, "step": 10 * i} for i in range(1, 41)]
    assert len(watch(tmp_path, [1.0] * 11, history)) == 1
    assert watch(tmp_path, [1.0] * 10, history) == []


def test_hypotheses_stand_beside_their_references_in_the_log_and_on_tensorboard(
    tmp_path: Path, said: list[str]
) -> None:
    trainer = make_trainer(tmp_path, steps=1)
    trainer.args.report_to = ["tensorboard"]
    trainer.add_callback(HypothesisCallback(lambda: trainer.last_predictions, rows=2))
    trainer.train()
    trainer.evaluate()
    said = [line for line in said if line.startswith("  ")]
    first = trainer.last_predictions[0]
    assert said == [
        f"  {task}: {first.example.texts[task]!r} → {first.hypotheses[task].text!r}"
        for task in first.hypotheses
    ]
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    (page,) = events.Tensors("hypotheses/text_summary")
    text = page.tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == "| id | task | reference | hypothesis |"
    assert len(text.splitlines()) == 2 + 2 * 2
    assert first.example.texts["translate"] in text
