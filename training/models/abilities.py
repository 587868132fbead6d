"""Abilities that only some models have: typed objects of an `Architecture`, or None."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from training.data.example import SpokenWord
from training.models.batch import Batch

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, kw_only=True)
class CtcFrames:
    """The frames of a model with a CTC output, which `training.decoding` decodes.

    tokens: text of each id of the vocabulary; a word starts at ``▁…`` where there is such a token, else words are
        separated by ``" "`` or ``"|"``. blank: id of the blank, whose text does not count.
    seconds_per_frame: audio that one frame stands for. edge_seconds: silence before the clip (and after it) that the
        first (and last) frames stand for.
    log_probs: ``(model, batch, states=None) -> list of float32 [real frames, vocabulary]``, one per row, padding cut
        off; ``states`` of a forward pass are read instead of a second one.
    speller: what spells a text in these tokens: ``encode(text) -> ids`` and ``unknown(text) -> characters``; None: given
        texts get no times.
    """

    tokens: tuple[str, ...]
    blank: int
    seconds_per_frame: float
    edge_seconds: float = 0.0
    log_probs: Callable[..., list[np.ndarray]]
    speller: Any = None


@dataclass(frozen=True, kw_only=True)
class LongFormTraining:
    """What a decoder that pipelines for long recordings use can be trained with (`training.data.long_form`).

    timestamps, previous_text: shares of the training samples. label_tokens: counts the tokens of texts as labels.
    most_labels: tokens of the text that fit the labels of one sample. prompt_tokens: the most that stand before the start
    token. cut: share of the joined samples with times that end within a clip.
    """

    timestamps: float
    previous_text: float
    label_tokens: Callable[[Iterable[str]], list[int]]
    most_labels: int
    prompt_tokens: int
    cut: float


class DomainPrediction(NamedTuple):
    """The result of `Domains.predict`: the batch with complete prompts, the encoder's states ``[batch, frames, width]``, and
    the predicted domain of each utterance (None: its domain was given)."""

    batch: Batch
    states: torch.Tensor | None
    domains: list[str | None]


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Domains (populations of speakers) that a model has tokens for.

    names: in the order of the configuration. default: domain of utterances that name none; None: such utterances are refused.
    predictable: whether the model learnt to predict the domain itself.
    predict: ``(model, batch, states=None) -> DomainPrediction``; completes prompts that leave the domain open.
    """

    names: tuple[str, ...]
    default: str | None = None
    predictable: bool = False
    predict: Callable[..., DomainPrediction]


class LanguagePrediction(NamedTuple):
    """The result of `LanguageDetection.detect`: the batch with complete prompts, the encoder's states ``[batch, frames,
    width]``, and of each utterance the probability of each language (empty: its language was given)."""

    batch: Batch
    states: torch.Tensor | None
    probabilities: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class LanguageDetection:
    """Detection of the spoken language by the model itself.

    languages: those that it tells apart (ISO 639 codes).
    detect: ``(model, batch, states=None) -> LanguagePrediction``; completes prompts that leave the language open (`AUTO`).
    """

    languages: tuple[str, ...]
    detect: Callable[..., LanguagePrediction]


class Aligner(Protocol):
    """Times and confidence of given words.

    given_text: training scores the times of the reference's words; no text is generated for it.
    """

    @property
    def given_text(self) -> bool: ...

    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: torch.Tensor | None = None
    ) -> list[tuple[SpokenWord, ...]]:
        """Times of the whitespace-separated words of one text per row.

        Args:
            model: the module.
            batch: on the model's device.
            texts: one text per row.
            states: encoder states ``[batch, frames, width]`` where they are known already.

        Returns:
            For each row its words with times in seconds from the start of the clip; ``()`` where the text cannot be
            aligned.
        """
        ...


class ReadText(NamedTuple):
    """What a decoder attends to while it reads a text.

    weights: attention float32 ``[heads, tokens + 1, encoder frames]``; row i is that of the step that predicts token i, the
    last row that of the end of the text. log_probs: natural logarithm of the probability of each token, after those before
    it and before any suppression, float ``[tokens]``. log_mel: Whisper's log-mels of the padded clip ``[mels, frames]``.
    """

    weights: np.ndarray
    log_probs: np.ndarray
    log_mel: np.ndarray


class TextReader(Protocol):
    """Lets a decoder read given texts; nothing is generated."""

    def ids(self, word: str) -> list[int]:
        """Token ids of a word of a text."""
        ...

    def room(self, batch: Batch) -> int:
        """The most tokens of a text that fit behind the prompts."""
        ...

    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[Sequence[int]], states: Any = None
    ) -> list[ReadText]:
        """Read one text per row behind its prompt for transcripts; ``states``: those of the encoder where they are known."""
        ...


@dataclass(frozen=True)
class CrossAttention:
    """A decoder whose cross-attention gives the times of given words (Whisper's published word timestamps).

    reader: of the decoder. head: frames of a CTC head on the encoder, whose times are better in a small model from scratch;
    None without.
    """

    reader: TextReader
    head: CtcFrames | None = None
