"""How long a run will take on this machine's CPU, and what that costs: a step and some hypotheses are timed, the rest is
counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.base.durations import in_words
from training.config.arguments import batch_policy, decode_options
from training.config.schema import Config
from training.data.sampler import FullContextBatch
from training.decoding.predict import predict
from training.engine.arithmetic import device
from training.models.architecture import Architecture
from training.planning import trial
from training.planning.worst_case import Known, elements, make_sampler

EVALUATED = 8
"""Clips of the dev split whose decoding is timed; of a slow machine one."""


@dataclass(frozen=True)
class Steps:
    """``each``: optimiser steps of an epoch. ``total``: those of the run."""

    each: int
    total: int

    @property
    def epochs(self) -> float:
        """Passes over the training split."""
        return self.total / self.each


@dataclass(frozen=True)
class Sample:
    """One optimiser step that stands for all of a run.

    Attributes:
        step: its seconds.
        features: the clips of its batch.
        counted: whether its seconds are counted from its operations, because a step would take too long to be tried.
    """

    step: trial.Timed
    features: list[Any]
    counted: bool = False


@dataclass(frozen=True)
class Duration:
    """Seconds of a run: ``training`` of its steps, ``evaluation`` of one evaluation (None: not timed)."""

    steps: Steps
    training: float
    evaluations: int
    evaluation: float | None
    counted: bool = False

    @property
    def seconds(self) -> float:
        """Of the whole run, as far as its parts are known."""
        return self.training + self.evaluations * (self.evaluation or 0.0)

    def __str__(self) -> str:
        each = self.training / self.steps.total
        parts = [f"{self.steps.total:,} steps {in_words(self.training)}, {each:.2g} s a step"]
        if self.evaluations:
            told = "not timed" if self.evaluation is None else in_words(self.evaluations * self.evaluation)
            parts.append(
                f"{self.evaluations} {'evaluation' if self.evaluations == 1 else 'evaluations'} {told}"
            )
        how = "; counted from the operations of a step, none was timed" if self.counted else ""
        return f"about {in_words(self.seconds)} on this machine ({', '.join(parts)}{how})"


def steps(config: Config, batches: int) -> Steps:
    """Optimiser steps with so many batches of one process in an epoch, as the trainer counts them."""
    training = config.training
    # The last optimiser step of an epoch takes the batches that are left.
    each = max(1, -(-batches // training.gradient_accumulation_steps))
    total = training.max_steps if training.max_steps > 0 else math.ceil(training.num_train_epochs * each)
    return Steps(each, total)


def estimate(
    config: Config,
    architecture: Architecture,
    model: Any,
    splits: Mapping[str, Any],
    sampler: Any,
    known: Known,
    sample: Sample | None = None,
) -> Duration:
    """Time one optimiser step on a batch of usual size, and the decoding of some dev clips; the weights change.

    Where a step of usual size would take too long, ``sample`` is another one, of which the seconds are known.

    Args:
        config: of the run.
        architecture: with its weights.
        model: what is trained of it.
        splits: encoded utterances of ``train`` and, where it is scored, ``dev``: all or a sample.
        sampler: the sampler of training.
        known: durations of the whole splits.
        sample: a step that is timed, or counted, already; None: one is timed now.

    Returns:
        The duration; the timed batch stands for all others by their seconds with padding.
    """
    batches, dev = sampler.batches(), splits.get("dev")
    counted = steps(config, len(batches))
    if sample is None:
        features, seconds = _usual_batch(config, splits["train"])
        timed, clips = trial.step(config, architecture, model, architecture.collate(features)), EVALUATED
    else:
        features, timed, clips = sample.features, sample.step, 0 if sample.counted else 1
        seconds = _seconds(architecture, features, known)
    full = sum(len(rows) for rows in batches if isinstance(rows, FullContextBatch))
    padded = sum(
        _padded(sampler.durations, rows) for rows in batches if not isinstance(rows, FullContextBatch)
    )
    if full:
        padded += full * _whole(architecture, features, seconds)
    passes = timed.passes / seconds * padded * counted.epochs
    scored = evaluations(config, counted)
    each = None
    pretrained = config.model is not None and config.model.weights
    if scored and dev is not None and len(dev) and pretrained and clips:
        durations = known.dev if known.dev is not None else dev.durations
        each = _evaluation(config, architecture, dev, durations, clips)
    in_all = passes + timed.update * counted.total
    return Duration(counted, in_all, scored, each, counted=sample is not None and sample.counted)


def not_timed(config: Config, *, data: bool) -> str:
    """Why nothing is known of a run's time. data: whether the training data are here."""
    if not data:
        return "not known without the training data"
    kind = device(config)
    if kind != "cpu":
        return f"not timed: the run is planned for {kind}, the trial is one of this CPU; each logged line of the run says what is left"
    return "not timed: no step could be tried here; each logged line of the run says what is left"


def cost_text(price: float | None, found: Duration | None) -> str | None:
    """What a run costs at this price per hour; None where the configuration names no price."""
    if price is None:
        return None
    if found is None:
        return f"{price:g} an hour (profile.price_per_hour); the run was not timed here"
    word = "at least" if found.evaluations and found.evaluation is None else "about"
    return f"{word} {price * found.seconds / 3600:.2f}, at {price:g} an hour (profile.price_per_hour)"


def _seconds(architecture: Architecture, features: list[Any], known: Known) -> float:
    """Seconds of a batch with padding; where every clip is padded to the whole context, as many clips count as usual."""
    if architecture.collate.padding == "full":
        return len(features) * float(known.train.mean())
    return len(features) * max(float(one["seconds"]) for one in features)


def _usual_batch(config: Config, train: Any) -> tuple[list[Any], float]:
    """The features of the batch of median size, and its seconds with padding; none that is padded to the whole context."""
    durations = np.asarray(train.durations)
    drawn = make_sampler(config, durations).batches()
    batches = [rows for rows in drawn if not isinstance(rows, FullContextBatch)] or drawn
    batches.sort(key=lambda rows: _padded(durations, rows))
    rows = batches[len(batches) // 2]
    return [train[int(row)] for row in rows], _padded(durations, rows)


def _padded(durations: np.ndarray, rows: Sequence[int | tuple[int, ...]]) -> float:
    """Seconds of a batch, padding included; joined clips count as one."""
    return len(rows) * max(
        float(durations[list(row) if isinstance(row, tuple) else [row]].sum()) for row in rows
    )


def _whole(architecture: Architecture, features: list[Any], seconds: float) -> float:
    """The seconds that a clip of a `FullContextBatch` counts, where the batch ``features`` counts ``seconds``."""
    full = elements(architecture.collate.in_full_context()(features)) / elements(
        architecture.collate(features)
    )
    return full * seconds / len(features)


def evaluations(config: Config, counted: Steps) -> int:
    """Evaluations of the dev split in a run."""
    training = config.training
    if training.eval_strategy == "no":
        return 0
    if training.eval_strategy == "epoch":
        return math.ceil(counted.epochs)
    every = training.eval_steps or training.logging_steps
    # The trainer scores the end of the run in any case.
    return math.ceil(counted.total / interval(every, counted.total))


def interval(every: float, total: int) -> int:
    """Steps between two evaluations, checkpoints or logged lines; ``every`` below 1 is a share of all steps."""
    return max(1, math.ceil(total * every) if every < 1 else int(every))


def _evaluation(
    config: Config, architecture: Architecture, dev: Any, durations: np.ndarray, clips: int
) -> float:
    """Seconds of one evaluation: some clips decoded, the others by their seconds of audio."""
    limit = config.evaluation.max_utterances or len(durations)
    audio = float(np.mean(durations)) * min(limit, len(durations))
    count = min(clips, len(dev))
    chosen = dev.select([i * len(dev) // count for i in range(count)])
    policy = batch_policy(config)
    started = time.perf_counter()
    predict(
        architecture,
        chosen,
        batch_seconds=policy.eval_seconds,
        batch_size=policy.eval_batch_size,
        options=decode_options(config),
        autocast=lambda: trial.autocast(config),
    )
    return (time.perf_counter() - started) / max(1e-3, float(np.sum(chosen.durations))) * audio
