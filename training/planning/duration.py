"""How long a run will take on this machine's CPU: a step and some hypotheses are timed, the rest is counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.config.arguments import batch_policy, decode_options
from training.config.schema import Config
from training.data.sampler import FullContextBatch
from training.decoding.predict import predict
from training.models.architecture import Architecture
from training.planning import trial
from training.planning.worst_case import Known, elements, make_sampler

EVALUATED = 8
"""Clips of the dev split whose decoding is timed."""


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
class Duration:
    """Seconds of a run: ``training`` of its steps, ``evaluation`` of one evaluation (None: not timed)."""

    steps: Steps
    training: float
    evaluations: int
    evaluation: float | None

    def __str__(self) -> str:
        whole = self.training + self.evaluations * (self.evaluation or 0.0)
        parts = [f"{self.steps.total:,} steps {in_words(self.training)}"]
        if self.evaluations:
            each = "not timed" if self.evaluation is None else in_words(self.evaluations * self.evaluation)
            parts.append(f"{self.evaluations} evaluations {each}")
        return f"about {in_words(whole)} on this machine ({', '.join(parts)})"


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
) -> Duration:
    """Time one optimiser step on a batch of usual size, and the decoding of some dev clips; the weights change.

    Args:
        config: of the run.
        architecture: with its weights.
        model: what is trained of it.
        splits: encoded utterances of ``train`` and, where it is scored, ``dev``: all or a sample.
        sampler: the sampler of training.
        known: durations of the whole splits.

    Returns:
        The duration; the last batches of the timed kind stand for all others by their seconds with padding.
    """
    batches, dev = sampler.batches(), splits.get("dev")
    counted = steps(config, len(batches))
    features, seconds = _usual_batch(config, splits["train"])
    timed = trial.step(config, architecture, model, architecture.collate(features))
    full = sum(len(rows) for rows in batches if isinstance(rows, FullContextBatch))
    padded = sum(
        _padded(sampler.durations, rows) for rows in batches if not isinstance(rows, FullContextBatch)
    )
    if full:
        padded += full * _whole(architecture, features, seconds)
    passes = timed.passes / seconds * padded * counted.epochs
    evaluations = _evaluations(config, counted)
    each = None
    if evaluations and dev is not None and len(dev) and config.model is not None and config.model.weights:
        each = _evaluation(config, architecture, dev, known.dev if known.dev is not None else dev.durations)
    return Duration(counted, passes + timed.update * counted.total, evaluations, each)


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


def _evaluations(config: Config, counted: Steps) -> int:
    training = config.training
    if training.eval_strategy == "no":
        return 0
    if training.eval_strategy == "epoch":
        return math.ceil(counted.epochs)
    every = training.eval_steps or training.logging_steps
    # The trainer scores the end of the run in any case.
    return math.ceil(counted.total / (math.ceil(counted.total * every) if every < 1 else every))


def _evaluation(config: Config, architecture: Architecture, dev: Any, durations: np.ndarray) -> float:
    """Seconds of one evaluation: some clips decoded, the others by their seconds of audio."""
    limit = config.evaluation.max_utterances or len(durations)
    audio = float(np.mean(durations)) * min(limit, len(durations))
    chosen = dev.select([i * len(dev) // min(EVALUATED, len(dev)) for i in range(min(EVALUATED, len(dev)))])
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


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
