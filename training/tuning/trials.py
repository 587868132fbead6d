"""A trial: a run like any other, watched and where it lags behind ended early, and the name of how it ended."""

from __future__ import annotations

import gc
import math
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.errors import MENDABLE, LogFile, UserError, handled
from training.config.agreement import keeps_best
from training.config.load import load_config
from training.engine.fit import Abandoned, Stopped, fit
from training.engine.run import build
from training.engine.trainer import NotFiniteError
from training.tuning.space import overrides
from training.tuning.study import (
    COMPLETE,
    DIVERGED,
    FAILED,
    MEMORY,
    OUTCOME,
    PRUNED,
    REASON,
    SECONDS,
    STOPPED,
    Setup,
)

if TYPE_CHECKING:
    import optuna

    from training.config.schema import Config

Report = Callable[[str], None]
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch's messages say where the memory is at its end, on a GPU or not."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its kind, the score of the model that it kept, and why it is no better."""

    kind: str
    value: float | None = None
    reason: str = ""


class Diverged(UserError):
    """A score on the dev split is NaN or infinite."""


class Watch(TrainerCallback):
    """Tells Optuna the score of every evaluation, and ends the run where Optuna's pruner says so.

    Evaluations are counted, not steps: trials with batches of different sizes are compared at the same share of
    their way.
    """

    def __init__(self, trial: optuna.Trial, metric: str, report: Report) -> None:
        self.trial, self.metric, self.report = trial, metric, report
        self.values: list[float] = []
        self.abandoned = False
        self.ended = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        value = float(kwargs["metrics"][self.metric])
        if not math.isfinite(value):
            raise Diverged(f"{self.metric} is {value} at step {state.global_step}")
        self.values.append(value)
        if self.ended:  # the mean of checkpoints is scored when the schedule is over
            return
        self.trial.report(value, len(self.values))
        self.report(f"  step {state.global_step}/{state.max_steps}: {self.metric} {value:.4f}")
        if state.global_step < state.max_steps and self.trial.should_prune():
            self.abandoned = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ended = True

    def kept(self, config: Config, greater_is_better: bool) -> float:
        """The score of the model that the run keeps: its best, or its last where it keeps that."""
        if not self.values:
            raise UserError(
                "training.eval_steps: the run ended before its first evaluation; evaluate more often"
            )
        if not keeps_best(config.training):
            return self.values[-1]
        return max(self.values) if greater_is_better else min(self.values)


def attempt(setup: Setup, overrides: Sequence[str], watch: Watch, log: Path) -> Outcome:
    """Train and say how it ended.

    Raises what ends the study with the trial: Ctrl-C and signals, and what the system refuses (a full disk).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        log.write_text("", encoding="utf8")
        with handled(LogFile(log)):
            config = load_config(setup.path, [*setup.overrides, *overrides])
            train(config, watch)
        return Outcome(COMPLETE, watch.kept(config, setup.greater_is_better))
    except Stopped:
        raise
    except Exception as error:  # whatever is wrong with one trial, the study does not end by it
        if isinstance(error, OSError) and error.errno in MENDABLE:
            raise
        if not isinstance(error, Abandoned):
            with log.open("a", encoding="utf8") as file:
                traceback.print_exc(file=file)
        return outcome_of(error)
    finally:
        free_memory()


def train(config: Config, watch: Watch) -> None:
    """The run of a trial."""
    run = build(config)
    fit(replace(run, callbacks=(watch,)))


def outcome_of(error: Exception) -> Outcome:
    """The kind of ending that an exception stands for."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, Abandoned):
        return Outcome(PRUNED, reason="behind the median of the trials before it")
    if isinstance(error, NotFiniteError | Diverged):
        return Outcome(DIVERGED, reason=reason)
    out = isinstance(error, RuntimeError) and any(part in str(error).lower() for part in NO_MEMORY)
    if out or isinstance(error, MemoryError):
        return Outcome(MEMORY, reason=reason)
    return Outcome(FAILED, reason=f"{type(error).__name__}: {reason}")


def free_memory() -> None:
    """Give back what the trial before held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def record(study: optuna.Study, trial: optuna.Trial, ended: Outcome, seconds: float) -> None:
    """Write the ending into the study.

    A diverged trial, and one that did not fit the memory, are pruned ones for Optuna: its sampler stays away from
    such values, while it would forget failures.
    """
    from optuna.trial import TrialState

    for name, value in ((OUTCOME, ended.kind), (REASON, ended.reason), (SECONDS, round(seconds, 1))):
        trial.set_user_attr(name, value)
    if ended.kind == COMPLETE:
        study.tell(trial, ended.value)
    else:
        learnt = ended.kind in (PRUNED, DIVERGED, MEMORY)
        study.tell(trial, state=TrialState.PRUNED if learnt else TrialState.FAIL)


def run_trial(study: optuna.Study, trial: optuna.Trial, setup: Setup, report: Report) -> Outcome:
    """`attempt` and `record`; a trial that something from outside ends is recorded as stopped, and that is raised."""
    began = time.perf_counter()
    watch = Watch(trial, setup.metric, report)
    values = overrides(setup.dimensions, trial.params)
    try:
        ended = attempt(setup, [*values, *setup.output(trial.number)], watch, setup.log(trial.number))
    except BaseException:
        record(study, trial, Outcome(STOPPED), time.perf_counter() - began)
        raise
    record(study, trial, ended, time.perf_counter() - began)
    return ended


def remove_weights(folder: Path) -> None:
    """Leave the trial's configuration, figures and logs; weights and checkpoints go."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for pattern in WEIGHTS:
        for path in folder.glob(pattern):
            path.unlink()
