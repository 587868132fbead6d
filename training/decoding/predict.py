"""Decodes a dataset of encoded utterances into hypotheses: in training, evaluation and transcription."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from training.data.batch_policy import longest_first
from training.data.example import TASKS, TRANSCRIBE, Example, Hypothesis
from training.data.workers import leave_signals_to_the_run
from training.decoding.ctc_decoding import with_frame_decoder
from training.models.architecture import (
    AUTO,
    Architecture,
    Decoded,
    DecodeOptions,
    SpeechModel,
    UtteranceEncoder,
)
from training.models.batch import supervised_positions

TOKENS_PER_SECOND = 25
EXTRA_TOKENS = 16
"""Tokens per second, and tokens beside them, that bound a hypothesis where the configuration sets no bound: far more than
speech needs (byte-level tokens of Vietnamese included), and few enough to end a model that has not learnt to stop."""


@dataclass(frozen=True)
class Prediction:
    """One utterance and its hypotheses by task. ``row`` is its index in the dataset; ``languages`` the probability of each
    language, where the model was asked to detect it."""

    row: int
    example: Example
    hypotheses: Mapping[str, Hypothesis]
    languages: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Predictions:
    """The result of `predict` over one rank's share, or over all of them after `gathered`."""

    predictions: list[Prediction] = field(default_factory=list)
    loss_sum: float = 0.0
    items: int = 0

    @property
    def loss(self) -> float:
        """Mean loss per supervised token."""
        return self.loss_sum / max(self.items, 1)

    @property
    def examples(self) -> list[Example]:
        """The utterances, in the dataset's order."""
        return [row.example for row in self.predictions]

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """Every hypothesis, utterance by utterance."""
        return [hypothesis for row in self.predictions for hypothesis in row.hypotheses.values()]

    def detected_languages(self) -> dict[str, int]:
        """How many utterances the model took for each language, where it was asked to detect it."""
        found = [
            max(row.languages, key=row.languages.__getitem__) for row in self.predictions if row.languages
        ]
        return dict(Counter(found).most_common())

    def add(self, other: Predictions) -> None:
        """Add the predictions and the loss of another call."""
        self.predictions += other.predictions
        self.loss_sum += other.loss_sum
        self.items += other.items

    def gathered(self, world: int) -> Predictions:
        """All ranks' predictions, each utterance once, in the dataset's order."""
        parts: list[Any] = [self]
        if world > 1:
            import torch

            parts = [None] * world
            torch.distributed.all_gather_object(parts, self)
        by_row = {row.row: row for part in parts for row in part.predictions}
        return Predictions(
            [by_row[row] for row in sorted(by_row)],
            sum(part.loss_sum for part in parts),
            sum(part.items for part in parts),
        )


@dataclass(frozen=True)
class PromptsOnly(UtteranceEncoder):
    """An encoder without the references, so that an utterance with too many labels can still be decoded."""

    encode: UtteranceEncoder
    tasks: tuple[str, ...] = TASKS

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return self.encode(replace(example, texts={}), waveform)

    def check(self, example: Example, seconds: float) -> None:
        """The check of the wrapped encoder, without texts (see `training.data.dataset.validate`)."""
        self.encode.check(replace(example, texts={}), seconds)


def predict(
    architecture: SpeechModel,
    dataset: Any,
    *,
    model: Any = None,
    batch_seconds: float = 60.0,
    batch_size: int | None = None,
    options: DecodeOptions | None = None,
    given_text: bool = False,
    with_loss: bool = True,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    context: Any = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Predictions:
    """Decode every utterance of a dataset for every task of the architecture, and compute the loss.

    Utterances are batched by length, longest first. The encoder runs once for the loss and all tasks.

    Args:
        architecture: the model and its encoding, collation and decoding.
        dataset: ``dataset[i]`` gives features, ``dataset.manifest[i]`` the example, ``dataset.durations`` the seconds
            of all utterances, float ``[rows]``.
        model: a module to use instead of ``architecture.model`` (the trainer's).
        batch_seconds: seconds of audio in a batch, padding included.
        batch_size: the most utterances in a batch; None: no bound.
        options: of decoding; None: greedy. A model with an aligner also gives the times of the words.
        given_text: generate no text; the hypotheses are the reference transcripts with times and confidence of words.
        with_loss: also compute the loss on the references.
        rank: of this process; it decodes every ``world``-th batch.
        world: number of processes.
        workers: processes that load the data; 0: this process.
        context: of multiprocessing, for the workers.
        autocast, progress: gives the context of each forward pass; gets the audio seconds of each finished batch.

    Returns:
        Predictions in the order of the dataset, and the loss, of this rank's share.
    """
    assert architecture.aligner is not None or not given_text
    options = with_frame_decoder(architecture, options or DecodeOptions())
    model = architecture.model if model is None else model
    batches = longest_first(dataset.durations, batch_seconds, batch_size)[rank::world]
    result = Predictions()
    with architecture.inference(model):
        for rows, batch in zip(
            batches, _loaded(dataset, batches, architecture.collate, workers, context), strict=True
        ):
            with autocast():
                found = _predict_batch(
                    architecture, model, dataset, rows, batch, options, given_text, with_loss
                )
            result.add(found)
            progress(batch["seconds"])
    result.predictions.sort(key=lambda row: row.row)
    return result


def _loaded(
    dataset: Any, batches: Sequence[list[int]], collate: Callable[..., Any], workers: int, context: Any
) -> Iterator[Any]:
    """The collated batches, in order; by ``workers`` processes where there are any."""
    if not workers:
        return (collate([dataset[row] for row in rows]) for rows in batches)
    import torch
    from torch.utils.data import DataLoader

    return iter(
        DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context=context,
            worker_init_fn=leave_signals_to_the_run,
            generator=torch.Generator(),  # its own, so that evaluating leaves the training's draws as they were
        )
    )


def _predict_batch(
    architecture: SpeechModel,
    model: Any,
    dataset: Any,
    rows: list[int],
    batch: dict[str, Any],
    options: DecodeOptions,
    given_text: bool,
    with_loss: bool,
) -> Predictions:
    started = time.perf_counter()
    batch = architecture.on_device(batch, model)
    found, states = Predictions(), None
    if with_loss:
        assert isinstance(architecture, Architecture)
        output = architecture.loss(batch, items=1, model=model)
        states = output.encoder_last_hidden_state
        found.loss_sum, found.items = float(output.loss), supervised_positions(batch)
    examples = [dataset.manifest[row] for row in rows]
    languages: Sequence[Mapping[str, float]] = [{}] * len(rows)
    if architecture.language_detection is not None and not given_text:
        batch, states, languages = architecture.language_detection.detect(model, batch, states)
    domains: list[str | None] = [None] * len(rows)
    if architecture.domains is not None:
        batch, states, domains = architecture.domains.predict(model, batch, states)
    decoded: Mapping[str, Sequence[Decoded | None]]
    if given_text:
        decoded = {TRANSCRIBE: _given(architecture, model, batch, examples, states)}
    else:
        longest = max(float(dataset.durations[row]) for row in rows)
        bounded = replace(options, max_new_tokens=options.max_new_tokens or longest_hypothesis(longest))
        decoded = _decoder(architecture, options)(batch, bounded, model=model, states=states)
    seconds = (time.perf_counter() - started) / max(1, len(rows) * len(decoded))
    for i, row in enumerate(rows):
        example = in_languages(examples[i], architecture.languages)
        hypotheses = {
            task: Hypothesis(
                id=example.id,
                task=task,
                text=one.text,
                seconds=seconds,
                confidence=one.confidence,
                words=one.words,
                domain=domains[i],
                quality=one.quality,
            )
            for task, rows_of_task in decoded.items()
            if (one := rows_of_task[i]) is not None
        }
        found.predictions.append(Prediction(row, example, hypotheses, languages[i]))
    return found


def _decoder(architecture: SpeechModel, options: DecodeOptions) -> Callable[..., Any]:
    if options.safeguards is None:
        return architecture.decode
    from training.decoding.fallback import decode_guarded

    return partial(decode_guarded, architecture)


def in_languages(example: Example, languages: tuple[str, str]) -> Example:
    """The example with the model's languages where it names none; normalisation and tagging depend on them.

    The language of the speech does not determine that of the translation: the translation of an English utterance is
    in the model's target language. None where neither names one.
    """
    spoken, written = example.language or languages[0], example.target_language or languages[1]
    return replace(
        example,
        language=None if spoken == AUTO else spoken,
        target_language=None if written == AUTO else written,
    )


def _given(
    architecture: SpeechModel, model: Any, batch: dict[str, Any], examples: list[Example], states: Any
) -> list[Decoded | None]:
    """The reference transcripts with the times of their words; None where an example has no transcript."""
    texts = [example.texts.get(TRANSCRIBE) for example in examples]
    found = architecture.align(batch, [text or "" for text in texts], model=model, states=states)
    return [one if text else None for one, text in zip(found, texts, strict=True)]


def longest_hypothesis(seconds: float) -> int:
    """Tokens after which generation ends for clips of this length, where the configuration sets no bound."""
    return EXTRA_TOKENS + int(TOKENS_PER_SECOND * seconds)
