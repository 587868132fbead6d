"""The heaviest batches that a run can meet, from the durations of its data or, without data, from its limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.config.arguments import DEFAULT_BATCH
from training.config.schema import Config
from training.data.example import AudioRef, Example, Word
from training.data.sampler import DurationBatchSampler, longest_first
from training.decoding.predict import longest_hypothesis
from training.models.architecture import Batch, Bundle, Features, new_tokens
from training.planning.memory import EVALUATION_SECONDS, Load

TOKENS_PER_SECOND = 10
"""Label tokens in a second of fast Vietnamese or English speech, where no tokenizer can count them: five
syllables of two byte-level tokens each."""
EXTRA_TOKENS = 8
TOKENS_PER_WORD = 2
SHORTEST = 1.0
"""Seconds of the shortest clip that is assumed where there is no data."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of the data: clip lengths in seconds, and label tokens where a tokenizer could count them."""

    train: np.ndarray
    dev: np.ndarray | None
    longest_labels: int | None = None
    measured: bool = False


def assumed(config: Config) -> Known:
    """Clips of every length up to the limit."""
    lengths = np.linspace(
        min(SHORTEST, config.audio.max_length_seconds), config.audio.max_length_seconds, 512
    )
    return Known(train=lengths, dev=lengths if config.training.eval_strategy != "no" else None)


def load(config: Config, bundle: Bundle, known: Known) -> Load:
    """The heaviest training batch that the sampler can draw and the heaviest of evaluation, with made-up content."""
    # A share of Whisper's trimmed batches is padded to 30 s in training: then the one of most clips is heaviest.
    always = getattr(bundle.collate, "context", "") == "full"
    sometimes = always or bool(getattr(bundle.train_collate, "full_share", 0))
    full: Any = dataclasses.replace(bundle.collate, context="full") if sometimes else bundle.collate  # type: ignore[type-var]

    def batch(collate: Any, rows: int, seconds: float) -> Batch:
        return collate([synthetic_features(bundle, seconds, known.longest_labels)] * rows)

    train = batch(full, *heaviest(config, known.train, padded=sometimes))
    if known.dev is None or not len(known.dev):
        return Load(train=train)
    rows, seconds = evaluation_batch(config, known.dev, padded=always)
    evaluation = batch(bundle.collate, rows, seconds)
    if bundle.ctc is not None:  # nothing is generated: the frames of the forward pass are read
        return Load(train=train, evaluation=evaluation)
    settings = config.evaluation
    tokens = new_tokens(
        settings.max_new_tokens or longest_hypothesis(seconds),
        _positions(bundle),
        evaluation["prompt_length"],
    )
    return Load(train=train, evaluation=evaluation, new_tokens=tokens, beams=settings.num_beams)


def _positions(bundle: Bundle) -> int:
    """Positions of the decoder, over all architectures' names for them."""
    decoder: Any = bundle.model.config.get_text_config(decoder=True)
    return int(getattr(decoder, "max_target_positions", None) or decoder.max_position_embeddings)


def heaviest(config: Config, durations: np.ndarray, *, padded: bool = False) -> tuple[int, float]:
    """Clips of the sampler's heaviest batch, and seconds of the longest of them.

    ``padded``: clips are padded to one length, whatever their own; otherwise to the longest of their batch. Clips
    that are joined (``augmentation.join``) count as one.
    """
    sampler = make_sampler(config, durations)
    pairs = [(sampler.rows_in(bucket), float(sampler.durations[bucket[-1]])) for bucket in sampler.buckets]
    shortest = [float(sampler.durations[bucket[0]]) for bucket in sampler.buckets]
    pairs += [
        joined
        for pair, least in zip(pairs, shortest, strict=True)
        for joined in _joined(config, *pair, least)
    ]
    return max(pairs, key=lambda pair: _weight(pair[0], pair[1], padded))


def _joined(config: Config, rows: int, seconds: float, shortest: float) -> list[tuple[int, float]]:
    """What becomes of a bucket's batch when its clips are joined: as long as allowed, silences beside them."""
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
    batches = longest_first(durations, config.evaluation.batch_seconds or EVALUATION_SECONDS)
    pairs = [(len(rows), float(durations[rows[0]])) for rows in batches]
    return max(pairs, key=lambda pair: _weight(pair[0], pair[1], padded))


def _weight(rows: int, seconds: float, padded: bool) -> tuple[float, float]:
    return (rows, seconds) if padded else (round(rows * seconds), seconds)


def make_sampler(config: Config, durations: np.ndarray) -> DurationBatchSampler:
    """A sampler with the buckets of the one that training will use, for one process."""
    return DurationBatchSampler(durations, **bounds(config))


def bounds(config: Config) -> dict[str, Any]:
    """What a sampler is told of its batches."""
    training = config.training
    return {
        "max_seconds": training.max_batch_seconds,
        "batch_size": training.batch_size or (None if training.max_batch_seconds else DEFAULT_BATCH),
        "seed": training.seed,
    }


def synthetic_features(bundle: Bundle, seconds: float, longest_labels: int | None = None) -> Features:
    """Noise of that length, encoded, with labels of made-up ids as long as speech of that length may need."""
    features = encoded(bundle, "a", seconds)
    features["labels"] = {
        task: _stretched(ids, features["prompt"][task], label_length(bundle, seconds, longest_labels))
        for task, ids in features["labels"].items()
    }
    if "ctc_labels" in features:
        # Twice as many frames as labels: alignable whatever repeats.
        features["ctc_labels"] = (features["ctc_labels"] or [0])[:1] * max(
            1, int(seconds * TOKENS_PER_SECOND)
        )
    if "token_words" in features:
        features |= _timed(features, seconds)
    return features


def _timed(features: Features, seconds: float) -> Features:
    """Word times for the labels of an encoder that takes them."""
    ((task, ids),) = features["labels"].items()
    prompt = features["prompt"][task]
    tokens = len(ids) - prompt - 1
    words = max(1, tokens // TOKENS_PER_WORD)
    owners = [min(i // TOKENS_PER_WORD, words - 1) for i in range(tokens)]
    found = {"token_words": [*[-1] * prompt, *owners, -1], "words": words}
    if "starts" in features:
        borders = np.linspace(0.0, seconds, words + 1).tolist()
        found |= {"starts": borders[:-1], "ends": borders[1:]}
    return found


def encoded(bundle: Bundle, text: str, seconds: float = 1.0) -> Features:
    """Noise of that length with this text for every task, as the run would encode it."""
    clip = Example(
        id="noise",
        audio=AudioRef(path="-"),
        duration=seconds,
        texts=dict.fromkeys(bundle.tasks, text),
        domain=next(iter(bundle.domains), None),
        words=tuple(Word(text=word, start=0.0, end=seconds) for word in text.split()),
    )
    noise = np.random.default_rng(0).standard_normal(math.ceil(seconds * bundle.sample_rate))
    return bundle.encode(clip, (0.1 * noise).astype(np.float32))


def label_length(bundle: Bundle, seconds: float, longest: int | None) -> int:
    """Label ids of a clip: counted ones where they are known, else as many as speech needs, within the limit."""
    wanted = longest or EXTRA_TOKENS + math.ceil(seconds * TOKENS_PER_SECOND)
    room = getattr(bundle.encode, "room", None)  # CTC cannot align more labels than frames
    wanted = min(wanted, room(seconds) - 1) if room is not None else wanted
    return min(wanted, getattr(bundle.encode, "max_label_tokens", wanted) - 1)


def _stretched(ids: Sequence[int], prompt: int, length: int) -> list[int]:
    return [*ids[:prompt], *[ids[prompt]] * max(1, length - prompt - 1), ids[-1]]
