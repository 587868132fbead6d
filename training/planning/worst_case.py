"""The heaviest batches that a run can meet, from the durations of its data or, without data, from its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.config.arguments import batch_policy, decode_options
from training.config.schema import Config
from training.data.batch_policy import longest_first
from training.data.example import AudioRef, Example, Word
from training.data.sampler import DurationBatchSampler, NeighbourBatches, Neighbours
from training.decoding.predict import longest_hypothesis
from training.models.architecture import AUTO, TOKENS_PER_SECOND, Architecture, BatchCollator, new_tokens
from training.models.batch import Batch, Features
from training.planning.memory import Load

EXTRA_TOKENS = 8
SHORTEST = 1.0
"""Seconds of the shortest clip that is assumed where there is no data."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Figures of the data: clip lengths in seconds, label tokens of a clip and of a joined one where a tokenizer could
    count them, and which neighbours of one recording become one utterance."""

    train: np.ndarray
    dev: np.ndarray | None
    longest_labels: int | None = None
    joined_labels: int | None = None
    measured: bool = False
    joining: Neighbours | None = None

    def labels(self, seconds: float) -> int | None:
        """The most label tokens of an utterance of that length; None where they are not counted."""
        return self.longest_labels if seconds <= float(self.train.max()) else self.joined_labels


def assumed(config: Config) -> Known:
    """Clips of every length up to the limit."""
    lengths = np.linspace(
        min(SHORTEST, config.audio.max_length_seconds), config.audio.max_length_seconds, 512
    )
    return Known(train=lengths, dev=lengths if config.training.eval_strategy != "no" else None)


def load(config: Config, architecture: Architecture, known: Known) -> Load:
    """The heaviest training batch that the sampler can draw and the heaviest of evaluation, with made-up content."""
    training = architecture.train_collate or architecture.collate
    always = architecture.collate.padding == "full"

    def batch(collate: BatchCollator, rows: int, seconds: float, before: int = 0) -> Batch:
        return collate([synthetic_features(architecture, seconds, known.labels(seconds), before)] * rows)

    before = architecture.long_form.prompt_tokens if architecture.long_form is not None else 0
    shape = heaviest(config, known.train, padded=always, joining=known.joining)
    train = batch(architecture.collate, *shape, before)
    if training.padding == "some_full" and not always:
        full = batch(architecture.collate.in_full_context(), *fullest(config, known), before)
        train = max(train, full, key=elements)
    if known.dev is None or not len(known.dev):
        return Load(train=train)
    rows, seconds = evaluation_batch(config, known.dev, padded=always)
    evaluation = batch(architecture.collate, rows, seconds)
    if architecture.positions is None:  # nothing is generated: the frames of the forward pass are read
        return Load(train=train, evaluation=evaluation)
    options = decode_options(config)
    wanted = options.max_new_tokens or longest_hypothesis(seconds)
    tokens = new_tokens(wanted, architecture.positions, evaluation["prompt_length"])
    return Load(train=train, evaluation=evaluation, new_tokens=tokens, beams=options.beam_width)


def fullest(config: Config, known: Known) -> tuple[int, float]:
    """Clips of the largest batch that is padded to the whole context, and seconds of the longest clip."""
    rows = min(batch_policy(config).full_rows, len(known.train))
    return rows, make_sampler(config, known.train, known.joining).longest()


def elements(batch: Batch) -> int:
    """Numbers in the largest tensor of a batch."""
    return max(value.numel() for value in batch.values() if torch.is_tensor(value))


def heaviest(
    config: Config, durations: np.ndarray, *, padded: bool = False, joining: Neighbours | None = None
) -> tuple[int, float]:
    """Clips of the sampler's heaviest batch, and seconds of the longest of them.

    ``padded``: clips are padded to one length, whatever their own; otherwise to the longest of their batch. Clips
    that are joined (``augmentation.join``) count as one; ``joining``: only neighbours of one recording are.
    """
    shapes = make_sampler(config, durations, joining).shapes()
    pairs = [(rows, longest) for rows, longest, _ in shapes]
    if joining is None:
        pairs += [joined for shape in shapes for joined in _joined(config, *shape)]
    return max(pairs, key=lambda pair: _weight(pair[0], pair[1], padded))


def _joined(config: Config, rows: int, seconds: float, shortest: float) -> list[tuple[int, float]]:
    """Shapes (rows, seconds) of a bucket's batch when its clips are joined: as long as allowed, with silences."""
    changes, longest = config.augmentation, config.audio.max_length_seconds
    if not (changes.enabled and changes.join.prob):
        return []
    silences = changes.join.pause + (2 * changes.shift.seconds if changes.shift.prob else 0.0)
    return [
        (-(-rows // n), min(n * seconds, longest) + n * silences)
        for n in range(2, changes.join.most + 1)
        if n <= rows and n * shortest <= longest
    ]


def evaluation_batch(config: Config, durations: np.ndarray, *, padded: bool = False) -> tuple[int, float]:
    """Clips of the heaviest evaluation batch, and seconds of the longest of them."""
    batches = longest_first(durations, batch_policy(config).eval_seconds)
    pairs = [(len(rows), float(durations[rows[0]])) for rows in batches]
    return max(pairs, key=lambda pair: _weight(pair[0], pair[1], padded))


def _weight(rows: int, seconds: float, padded: bool) -> tuple[float, float]:
    return (rows, seconds) if padded else (round(rows * seconds), seconds)


def make_sampler(
    config: Config, durations: np.ndarray, joining: Neighbours | None = None
) -> DurationBatchSampler:
    """A sampler with the buckets of the one that training will use, for one process."""
    if joining is not None:
        return NeighbourBatches(durations, joining=joining, **bounds(config))
    return DurationBatchSampler(durations, **bounds(config))


def bounds(config: Config) -> dict[str, Any]:
    """The limits of the batches of a sampler."""
    return {**batch_policy(config).bounds(), "seed": config.training.seed}


def synthetic_features(
    architecture: Architecture, seconds: float, longest_labels: int | None = None, before: int = 0
) -> Features:
    """Noise of that length, encoded, with labels of made-up ids as long as speech of that length may need, and ``before``
    more for the text in front of the start token."""
    return architecture.heaviest_inputs(
        *noise(architecture, "a", seconds), label_length(architecture, seconds, longest_labels, before)
    )


def encoded(architecture: Architecture, text: str, seconds: float = 1.0) -> Features:
    """Noise of that length with this text for every task, as the run would encode it."""
    return architecture.encode(*noise(architecture, text, seconds))


def noise(architecture: Architecture, text: str, seconds: float) -> tuple[Example, np.ndarray]:
    """An utterance of noise with this text for every task, and its waveform."""
    clip = Example(
        id="noise",
        audio=AudioRef(path="-"),
        duration=seconds,
        texts=dict.fromkeys(architecture.tasks, text),
        language="en" if architecture.languages[0] == AUTO else None,
        domain=architecture.domains.names[0] if architecture.domains is not None else None,
        words=tuple(Word(text=word, start=0.0, end=seconds) for word in text.split()),
    )
    samples = np.random.default_rng(0).standard_normal(math.ceil(seconds * architecture.sample_rate))
    return clip, (0.1 * samples).astype(np.float32)


def label_length(architecture: Architecture, seconds: float, longest: int | None, before: int = 0) -> int:
    """Label ids of a clip: counted ones where they are known, else as many as speech needs; ``before`` more, within the
    limit."""
    wanted = before + (longest or EXTRA_TOKENS + math.ceil(seconds * TOKENS_PER_SECOND))
    most = architecture.encode.most_labels(seconds)
    return wanted if most is None else min(wanted, most - 1)
