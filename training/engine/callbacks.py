"""Callbacks of the trainer: logging, unfreezing, history, warnings, signals."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.errors import DRAWN
from training.base.progress import progress_bar, watched
from training.engine import checkpoint

logger = logging.getLogger(__name__)


class LoggingCallback(TrainerCallback):
    """A line per logged step and evaluation, and a progress bar in a terminal: loss, audio per second, time left.

    An evaluation at the end of an epoch has no line: its figures are in the epoch's summary (`training.engine.epoch_summary`).
    """

    def __init__(self) -> None:
        self.started = 0.0
        self.first_step = 0
        self.bar: Any = None
        self.summed_up = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.perf_counter()
        self.first_step = state.global_step
        self.summed_up = args.eval_strategy == "epoch"
        if state.is_world_process_zero and watched():
            self.bar = progress_bar(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.summed_up = False
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            self.say(self._step_line(state, logs))
            if self.bar is not None:
                self.bar.set_postfix_str(
                    f"loss {logs['loss']:.4f}, audio {logs['audio_hours_per_second'] * 3600:.0f} s/s"
                )
        elif not self.summed_up and any(key.startswith("eval_") for key in logs):
            scores = "  ".join(
                f"{key[5:]} {value:.3f}" for key, value in logs.items() if key.startswith("eval_")
            )
            self.say(f"step {state.global_step:>6}  evaluation  {scores}")

    def say(self, line: str, drawn: str | None = None) -> None:
        """Log a line, above the bar where there is one. ``drawn``: the line with colours, for a terminal."""
        with nullcontext() if self.bar is None else self.bar.external_write_mode():
            logger.info(line, extra={DRAWN: drawn or line})

    def _step_line(self, state: TrainerState, logs: dict[str, float]) -> str:
        done = state.global_step - self.first_step
        left = (time.perf_counter() - self.started) / max(done, 1) * (state.max_steps - state.global_step)
        parts = [
            f"step {state.global_step:>6}/{state.max_steps}",
            f"epoch {state.epoch or 0:.2f}",
            f"loss {logs['loss']:.4f}",
            f"lr {logs.get('learning_rate', 0):.2e}",
            f"audio {logs['audio_hours_per_second'] * 3600:.0f} s/s",
            f"left {left / 60:.1f} min",
        ]
        return "  ".join(parts)


class EncoderUnfreezeCallback(TrainerCallback):
    """Gives frozen parameters their gradient back when ``epochs`` have passed.

    ``freeze`` and ``unfreeze`` are called once each. The parameters are in the optimiser from the start, so that
    their optimiser states begin with their first gradients.
    """

    def __init__(self, epochs: float, freeze: Callable[[], int], unfreeze: Callable[[], int]) -> None:
        self.epochs, self.freeze, self.unfreeze = epochs, freeze, unfreeze
        self.done = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if (state.epoch or 0.0) < self.epochs:
            self.freeze()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.done and (state.epoch or 0.0) >= self.epochs:
            self.done = True
            logger.info(
                f"step {state.global_step}: {self.unfreeze()} parameters unfreeze after {self.epochs:g} epochs"
            )


class MetricsSaveCallback(TrainerCallback):
    """Keeps ``metrics/<experiment>_metrics.json`` up to date: every logged record, in order.

    After a resume the records from before the checkpoint stay, later ones are dropped, because they are logged again.
    """

    def __init__(self, path: Path, experiment: str) -> None:
        self.path, self.experiment = path, experiment

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write_json(self.path, {"experiment": self.experiment, "history": state.log_history})


class AugmentationStartCallback(TrainerCallback):
    """Logs when augmentation starts, after the number of epochs in ``augmentation.<key>``; warns where the run ends before."""

    def __init__(self, key: str, after: int) -> None:
        self.key, self.after = key, after

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.num_train_epochs <= self.after:
            logger.warning(
                f"warning: augmentation.{self.key} is {self.after}, and the run ends in epoch {state.num_train_epochs:g}: it "
                "has no effect; lower it or train longer"
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if round(state.epoch or 0.0, 6) == self.after:
            logger.info(
                f"epoch {self.after}: the clips are harder from here on (augmentation.{self.key}), and so is the loss"
            )


class ConvergenceMonitorCallback(TrainerCallback):
    """Warns, once per stretch, when the smoothed loss has not improved for ``patience`` steps.

    ``anew``: epochs at which augmentation starts; losses before them are not compared with later ones.
    """

    def __init__(self, patience: int = 500, minimum: float = 1e-3, anew: Sequence[float] = ()) -> None:
        self.patience, self.minimum = patience, minimum
        self.anew = sorted(anew)
        self.best = float("inf")
        self.best_step = 0
        self.smoothed: float | None = None
        self.warnings = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the state of a resumed run from its earlier records, without warnings."""
        for record in state.log_history:
            if "loss" in record:
                self._look(record["loss"], int(record["step"]), record.get("epoch"))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        stalled = self._look(logs["loss"], state.global_step, state.epoch) if logs and "loss" in logs else 0
        if stalled:
            self.warnings += 1
            logger.warning(
                f"warning: the training loss has not improved on {self.best:.4f} for {stalled} steps; look at the "
                "learning rate and at the data"
            )

    def _look(self, loss: float, step: int, epoch: float | None) -> int:
        """Steps without improvement when a stretch of ``patience`` is over, else 0."""
        while self.anew and (epoch or 0.0) > self.anew[0]:
            self.anew.pop(0)
            self.best, self.smoothed = float("inf"), None
        self.smoothed = loss if self.smoothed is None else 0.7 * self.smoothed + 0.3 * loss
        if self.smoothed < self.best - self.minimum:
            self.best, self.best_step = self.smoothed, step
            return 0
        stalled = step - self.best_step
        if stalled < self.patience:
            return 0
        self.best_step = step
        return stalled


class HypothesisCallback(TrainerCallback):
    """Some hypotheses beside their references: one utterance in the log, ``rows`` on TensorBoard's text page."""

    def __init__(self, predictions: Callable[[], list[Any]], rows: int = 5) -> None:
        self.predictions, self.rows = predictions, rows

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        predictions = self.predictions()[: self.rows]
        if not predictions or not state.is_world_process_zero:
            return
        for _, task, reference, hypothesis in _beside(predictions[:1]):
            logger.info(f"  {task}: {reference!r} → {hypothesis!r}")
        if "tensorboard" in (args.report_to or ()):
            self._show(Path(str(args.output_dir)) / "logs", _beside(predictions), state.global_step)

    def _show(self, folder: Path, rows: list[tuple[str, str, str, str]], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        table = [("id", "task", "reference", "hypothesis"), ("---",) * 4, *rows]
        lines = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in table]
        with SummaryWriter(str(folder)) as writer:
            writer.add_text("hypotheses", "\n".join(lines), step)


def _beside(predictions: list[Any]) -> list[tuple[str, str, str, str]]:
    """Id, task, reference and hypothesis of each."""
    return [
        (row.example.id, task, row.example.texts.get(task, ""), hypothesis.text)
        for row in predictions
        for task, hypothesis in row.hypotheses.items()
    ]


class StopSignalCallback(TrainerCallback):
    """SIGTERM and Ctrl-C finish the step, or the evaluation, save and stop; a second one stops at once.

    Several ranks agree on it, over a group of their own on the CPU (the GPU is not waited for): a rank that stopped
    by itself would leave the others in their next exchange for ever. Python handles signals in the main thread alone:
    a training in another thread is not stopped by them.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}
        self.ranks: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.world_size > 1:
            self.ranks = torch.distributed.new_group(backend="gloo")
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(128 + number)  # the process itself is to end
        self.received = number
        logger.info(f"{signal.Signals(number).name}: saving after this step, then stopping")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._agreed():
            control.should_save = True
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.on_step_end(args, state, control)

    def _agreed(self) -> bool:
        if self.ranks is not None:
            number = torch.tensor(self.received or 0)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self.ranks)
            # A signal that came while the ranks waited for each other is not in the number: the next step's has it.
            self.received = self.received or int(number) or None
            return bool(number)
        return self.received is not None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Signals do what they did before; also after a run that ended by an error."""
        while self.previous:
            number, handler = self.previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
