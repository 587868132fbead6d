"""A summary after each epoch of training: losses, scores, learning rate, time, and where the best model lies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.durations import in_words
from training.base.terminal import COLOURS
from training.data.metric import LOGGED, LOSS, METRICS

SHORT = 60.0
"""Seconds. Shorter epochs without an evaluation are summed up together, so that a small corpus does not fill the screen."""
BESIDE = ("runtime", LOSS)
"""Figures of an evaluation that are no scores."""

Row = tuple[str, str]


@dataclass
class Span:
    """What happened since the last summary.

    Attributes:
        first: number of its first epoch, from 1.
        started: time of its begin.
        losses: logged training losses, each with the number of steps that it is the mean of.
        evaluation: figures of the last evaluation by their names without ``eval_``; empty without one.
        evaluations: their number.
        evaluated: seconds of all of them.
    """

    first: int
    started: float
    losses: list[tuple[float, int]] = field(default_factory=list)
    evaluation: dict[str, float] = field(default_factory=dict)
    evaluations: int = 0
    evaluated: float = 0.0

    @property
    def loss(self) -> float | None:
        """Mean of the training loss over the steps; None where none was logged."""
        steps = sum(steps for _, steps in self.losses)
        return sum(loss * steps for loss, steps in self.losses) / steps if steps else None


class EpochSummaryCallback(TrainerCallback):
    """Says a summary when an epoch and the evaluation and checkpoint that belong to it are finished.

    An epoch without an evaluation that took less than `SHORT` seconds is summed up with the next ones.

    Args:
        say: is given the plain text and the text with colours.
        clock: gives seconds.
    """

    def __init__(
        self, say: Callable[[str, str], object], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.say, self.clock = say, clock
        self.span: Span | None = None
        self.due = False
        self.logged = 0
        self.rate: float | None = None
        self.saved: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.logged, self.span, self.due = state.global_step, None, False

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._flush(args, state)
        if self.span is None:
            self.span = Span(math.floor(round(state.epoch or 0.0, 6)) + 1, self.clock())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.span is None or not logs:
            return
        if LOSS in logs:
            self.span.losses.append((logs[LOSS], state.global_step - self.logged))
            self.logged, self.rate = state.global_step, logs.get("learning_rate", self.rate)
        elif f"{LOGGED}{LOSS}" in logs:
            self.span.evaluation = {
                name.removeprefix(LOGGED): value for name, value in logs.items() if name.startswith(LOGGED)
            }
            self.span.evaluations += 1
            self.span.evaluated += logs.get(f"{LOGGED}runtime", 0.0)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.span is None:
            return
        ends = state.global_step >= state.max_steps or control.should_training_stop
        long = self.clock() - self.span.started >= SHORT
        known = ends or bool(self.span.evaluations) or args.eval_strategy == "epoch"
        self.due = known or long
        # An epoch of fewer steps than training.logging_steps has a loss too. Ranks log together, and their clocks differ.
        if self.due and not self.span.losses and (known or args.world_size == 1):
            control.should_log = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._flush(args, state)
        self.span = None

    def _flush(self, args: TrainingArguments, state: TrainerState) -> None:
        if not self.due or self.span is None:
            return
        span, self.span, self.due = self.span, None, False
        if state.is_world_process_zero:
            title = _title(span.first, state)
            rows = [*_figures(span, self.rate), *self._time(span), *self._model(args, state)]
            self.say(block(title, rows), block(title, rows, drawn=True))

    def _time(self, span: Span) -> Iterator[Row]:
        took = in_words(self.clock() - span.started)
        times = f" in {span.evaluations} evaluations" if span.evaluations > 1 else " in the evaluation"
        yield "time", took + (f", {in_words(span.evaluated)} of it{times}" if span.evaluations else "")

    def _model(self, args: TrainingArguments, state: TrainerState) -> Iterator[Row]:
        """The best checkpoint and its score; without evaluations the last checkpoint."""
        if state.best_metric is None:
            if self.saved is not None:
                yield "checkpoint", str(self.saved)
            return
        label, value = _score(str(args.metric_for_best_model).removeprefix(LOGGED), state.best_metric)
        told = f"{label} {value}, step {state.best_global_step}"
        yield "best model", f"{state.best_model_checkpoint or 'not saved yet'} ({told})"


def block(title: str, rows: list[Row], *, drawn: bool = False) -> str:
    """A title and its rows. ``drawn``: with lines and colours of a terminal."""
    width = max(len(name) for name, _ in rows)
    if not drawn:
        return "\n".join([title, *(f"  {name:{width}}  {text}" for name, text in rows)])
    bold = f"\x1b[{COLOURS['bold']}m{title}\x1b[0m"
    last = len(rows) - 1
    return "\n".join(
        [
            bold,
            *(
                f"{'└──' if n == last else '├──'} {name:{width}}  {text}"
                for n, (name, text) in enumerate(rows)
            ),
        ]
    )


def _title(first: int, state: TrainerState) -> str:
    """``epoch 3 of 50``, ``epochs 3–7 of 50``; of an epoch that ends early also how far it went."""
    done = round(state.epoch or 0.0, 2)
    last = max(first, math.ceil(done))
    name = f"epoch {first}" if last == first else f"epochs {first}–{last}"
    cut = "" if done == int(done) else f", up to {done:g}"
    return f"{name} of {state.num_train_epochs}{cut}, step {state.global_step:,} of {state.max_steps:,}"


def _figures(span: Span, rate: float | None) -> Iterator[Row]:
    if span.loss is not None:
        yield "train loss", f"{span.loss:.4f}"
    if LOSS in span.evaluation:
        yield "dev loss", f"{span.evaluation[LOSS]:.4f}"
    yield from _scores(span.evaluation)
    if rate is not None:
        yield "learning rate", f"{rate:.2e}"


def _scores(evaluation: Mapping[str, float]) -> Iterator[Row]:
    """A row for each score of all utterances, then one for each domain."""
    domains: dict[str, list[str]] = {}
    for name, value in evaluation.items():
        if name in BESIDE:
            continue
        label, text = _score(name, value)
        _, _, domain = name.removeprefix(_metric(name)).partition("_")
        if domain:
            domains.setdefault(domain, []).append(f"{label} {text}")
        else:
            yield label, text
    for domain, texts in domains.items():
        yield domain, ", ".join(texts)


def _metric(name: str) -> str:
    """The name in `METRICS` of a score, also of a domain's: ``cer`` for ``cer_child``; the whole name where it is none."""
    begins = [one for one in METRICS if name == one or name.startswith(f"{one}_")]
    return max(begins, key=len, default=name)


def _score(name: str, value: float) -> Row:
    """Label and value of a score, also of a domain's."""
    if name == LOSS:
        return "dev loss", f"{value:.4f}"
    metric = METRICS.get(_metric(name))
    if metric is None:
        return name, f"{value:.3f}"
    return metric.label, f"{value:.2f} %" if metric.corpus else f"{value:.0f} ms"
