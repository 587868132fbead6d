"""From a dataset of encoded utterances to hypotheses keyed by utterance id: in training, evaluation and use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from training.data.example import TRANSCRIBE, Example, Hypothesis, SpokenWord
from training.data.sampler import longest_first
from training.data.workers import leave_signals_to_the_run
from training.decoding.ctc_decoding import CtcDecoder, mean_confidence
from training.models.architecture import Bundle, model_inputs

TOKENS_PER_SECOND = 25
EXTRA_TOKENS = 16
"""Bound on the length of a hypothesis where the configuration sets none: far above any speech (byte-level
tokens of Vietnamese included), and low enough that a model which has not learnt to stop ends in time."""


@dataclass(frozen=True)
class Prediction:
    """One utterance and what the model said of it, by task. ``row`` is its place in the dataset."""

    row: int
    example: Example
    hypotheses: Mapping[str, Hypothesis]


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

    def gathered(self, world: int) -> Predictions:
        """All ranks' predictions, each utterance once, in the dataset's order."""
        parts: list[Any] = [self]
        if world > 1:
            parts = [None] * world
            torch.distributed.all_gather_object(parts, self)
        by_row = {row.row: row for part in parts for row in part.predictions}
        return Predictions(
            [by_row[row] for row in sorted(by_row)],
            sum(part.loss_sum for part in parts),
            sum(part.items for part in parts),
        )


@dataclass(frozen=True)
class PromptsOnly:
    """An ``encode`` that leaves the references out: no label of a test set is too long to be heard."""

    encode: Any

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return self.encode(replace(example, texts={}), waveform)

    def check(self, example: Example, seconds: float) -> None:
        """The encoder's own check of what is left (see `training.data.dataset.validate`)."""
        self.encode.check(replace(example, texts={}), seconds)


@torch.no_grad()
def predict(
    bundle: Bundle,
    dataset: Any,
    *,
    model: Any = None,
    batch_seconds: float = 60.0,
    batch_size: int | None = None,
    generation: Mapping[str, Any] | None = None,
    decoder: CtcDecoder | None = None,
    given_text: bool = False,
    with_loss: bool = True,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    context: Any = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Predictions:
    """Hypotheses of every utterance of ``dataset`` for every task of the bundle, and the loss beside them.

    Utterances are batched by length, longest first; the encoder runs once for the loss and all tasks.
    ``dataset[i]`` gives features, ``dataset.manifest[i]`` the example, ``dataset.durations`` seconds.
    ``decoder`` reads the frames of a model with a CTC output, instead of its ``generate``, and adds words and
    confidence. A bundle that aligns does so for the model's own transcripts. ``given_text`` asks for no text at all:
    the hypotheses are the reference transcripts, with the times and confidence that `Bundle.align` gives their words.
    ``progress`` is told the audio seconds of each finished batch.
    """
    assert decoder is None or bundle.ctc is not None
    assert bundle.align is not None or not given_text
    model = bundle.model if model is None else model
    was_training = model.training
    model.eval()
    batches = longest_first(dataset.durations, batch_seconds, batch_size)[rank::world]
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=bundle.collate,
        num_workers=workers,
        multiprocessing_context=context if workers else None,
        worker_init_fn=leave_signals_to_the_run,
        generator=torch.Generator(),  # its own, so that evaluating leaves the training's draws as they were
    )
    result = Predictions()
    try:
        for rows, batch in zip(batches, loader, strict=True):
            with autocast():
                _predict_batch(
                    bundle,
                    model,
                    dataset,
                    rows,
                    batch,
                    generation or {},
                    decoder,
                    given_text,
                    with_loss,
                    result,
                )
            progress(batch["seconds"])
    finally:
        model.train(was_training)
    result.predictions.sort(key=lambda row: row.row)
    return result


def _predict_batch(
    bundle: Bundle,
    model: Any,
    dataset: Any,
    rows: list[int],
    batch: dict[str, Any],
    generation: Mapping[str, Any],
    decoder: CtcDecoder | None,
    given_text: bool,
    with_loss: bool,
    result: Predictions,
) -> None:
    started = time.perf_counter()
    batch = on_device(batch, model)
    states = None
    if with_loss:
        output = model(**model_inputs(batch), num_items_in_batch=1)
        states = output.encoder_last_hidden_state
        result.loss_sum += float(output.loss)
        result.items += int((batch["labels"] != -100).sum())
    domains: list[str | None] = [None] * len(rows)
    if bundle.listen is not None:
        batch, states, domains = bundle.listen(model, batch, states)
    said: dict[str, list[_Said | None]]
    if given_text:
        said = _given(bundle, model, batch, [dataset.manifest[row] for row in rows], states)
    elif decoder is not None:
        said = _from_frames(bundle, model, batch, decoder)
    else:
        longest = max(float(dataset.durations[row]) for row in rows)
        options = {"max_new_tokens": longest_hypothesis(longest), **generation}
        sequences = bundle.generate(model, batch, states=states, **options)
        texts = {task: [bundle.decode(row) for row in ids.tolist()] for task, ids in sequences.items()}
        said = {task: [_Said(text) for text in found] for task, found in texts.items()}
        if bundle.align is not None and TRANSCRIBE in texts:
            said[TRANSCRIBE] = _aligned(bundle, model, batch, texts[TRANSCRIBE], states)
    seconds = (time.perf_counter() - started) / max(1, len(rows) * len(said))
    for i, row in enumerate(rows):
        example = in_languages(dataset.manifest[row], bundle.languages)
        hypotheses = {
            task: Hypothesis(
                id=example.id,
                task=task,
                text=one.text,
                seconds=seconds,
                confidence=one.confidence,
                words=one.words,
                domain=domains[i],
            )
            for task, found in said.items()
            if (one := found[i]) is not None
        }
        result.predictions.append(Prediction(row, example, hypotheses))


def on_device(batch: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The batch with its tensors where the model's weights are."""
    device = next(model.parameters()).device
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}


def in_languages(example: Example, languages: tuple[str, str]) -> Example:
    """The example with the model's languages where it names none: texts are normalised and tagged by them.

    What is spoken says nothing of the translation: that of an English utterance is in the model's target language.
    """
    spoken, written = example.language or languages[0], example.target_language or languages[1]
    return replace(example, language=spoken, target_language=written)


@dataclass(frozen=True)
class _Said:
    text: str
    confidence: float | None = None
    words: tuple[SpokenWord, ...] = ()


def _from_frames(
    bundle: Bundle, model: Any, batch: dict[str, Any], decoder: CtcDecoder
) -> dict[str, list[_Said | None]]:
    assert bundle.ctc is not None
    found = [decoder(frames) for frames in bundle.ctc.log_probs(model, batch)]
    return {TRANSCRIBE: [_Said(one.text, one.confidence, one.words) for one in found]}


def _aligned(
    bundle: Bundle, model: Any, batch: dict[str, Any], texts: list[str], states: Any
) -> list[_Said | None]:
    """The texts with the times of their words."""
    assert bundle.align is not None
    found = bundle.align(model, batch, texts, states=states)
    return [_Said(text, mean_confidence(words), words) for text, words in zip(texts, found, strict=True)]


def _given(
    bundle: Bundle, model: Any, batch: dict[str, Any], examples: list[Example], states: Any
) -> dict[str, list[_Said | None]]:
    """The reference transcripts with the times of their words; None where an example has no transcript."""
    texts = [example.texts.get(TRANSCRIBE) for example in examples]
    found = _aligned(bundle, model, batch, [text or "" for text in texts], states)
    return {TRANSCRIBE: [one if text else None for one, text in zip(found, texts, strict=True)]}


def longest_hypothesis(seconds: float) -> int:
    """Tokens after which generation ends for clips of this length, where the configuration sets no bound."""
    return EXTRA_TOKENS + int(TOKENS_PER_SECOND * seconds)
