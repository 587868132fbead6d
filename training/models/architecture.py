"""The interface of a model: the rest of the library uses only its `Architecture`.

An architecture is one folder of ``training/models`` (or a class of another package, see `training.models.lookup`):
``config.py`` has its ``Options``, ``build.py`` its subclass of `Architecture`, ``collator.py`` the encoding of utterances
and the collation of batches, ``model.py`` the network. An ability of only some models is a typed object or None: `CtcFrames`, `Domains`, `Aligner`,
`CrossAttention`, `LongFormTraining`, `LanguageDetection`, `ScoredDecoder`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from training.data.example import TRANSCRIBE, DecodingQuality, Example, SpokenWord, mean_confidence
from training.models.abilities import (
    Aligner,
    CrossAttention,
    CtcFrames,
    Domains,
    LanguageDetection,
    LongFormTraining,
)
from training.models.batch import Batch, Features, model_inputs
from training.models.decoder_sizes import DecoderSizes, sizes_of
from training.models.options import ModelOptions
from training.models.safeguards import Safeguards, ScoredDecoder

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, ProcessorMixin

    from training.models.export_parts import ExportParts

TOKENS_PER_SECOND = 10
"""Label tokens in a second of fast Vietnamese or English speech, where no tokenizer can count them: five
syllables of two byte-level tokens each."""

AS_IT_IS, AUTO, NONE, SWAP = "as_it_is", "auto", "none", "swap"
"""The domain in the prompt: the utterance's own; the one that the model predicts; none; another than its own (the next in
the list)."""
ASKED = (AS_IT_IS, AUTO, NONE, SWAP)


def new_tokens(wanted: int | None, positions: int, prompt: int) -> int:
    """``max_new_tokens`` that fit the decoder.

    Args:
        wanted: the configured bound; None: as many as fit.
        positions: of the decoder.
        prompt: tokens of the prompt.
    """
    left = positions - prompt
    return min(wanted or left, left)


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """Arguments of `Architecture.build` beside its options.

    texts: iterates over the training split's texts as ``(task, language, text)`` (for tokenizers and trimmed
        vocabularies); it may be called more than once.
    meta: build a model without weights on the meta device (for the dry run where weights are not available).
    source: a checkpoint folder to restore instead of what the options name.
    seed: of the first weights.
    """

    texts: Callable[[], Iterable[tuple[str, str | None, str]]] | None = None
    meta: bool = False
    source: Path | None = None
    seed: int = 42


class UtteranceEncoder(ABC):
    """Encodes an utterance as features. Picklable, because data workers get a copy. Subclasses are frozen dataclasses.

    tasks: tasks that get labels.
    """

    tasks: tuple[str, ...]

    @abstractmethod
    def __call__(self, example: Example, waveform: np.ndarray) -> Features:
        """Features of an utterance.

        Args:
            example: its texts may be empty (an utterance to transcribe).
            waveform: float32 ``[time]``, mono, at the architecture's sample rate.

        Raises:
            ValueError: with the reason, when the utterance cannot be used (too many label tokens, say); the caller
                writes it into the drop ledger.
        """

    @abstractmethod
    def check(self, example: Example, seconds: float) -> None:
        """Raise the errors that encoding ``seconds`` of audio with these texts would raise, without the audio."""

    def unwritable(self, example: Example) -> int:
        """Characters or pieces of the texts that the vocabulary has no id for; 0 for a vocabulary of bytes."""
        return 0

    def most_labels(self, seconds: float) -> int | None:
        """The longest label sequence that a clip of that length may have, EOS included; None: no bound."""
        return None

    @property
    def longest(self) -> float | None:
        """Seconds of the longest utterance that can be encoded; None: no bound."""
        return None

    def with_tasks(self, tasks: tuple[str, ...]) -> Self:
        """The same for these tasks alone."""
        return replace(self, tasks=tasks)  # type: ignore[type-var]


class BatchCollator(ABC):
    """Collates features into a batch. Picklable, as `UtteranceEncoder`. Subclasses are frozen dataclasses.

    tasks: the second axis of the labels, in this order.
    """

    tasks: tuple[str, ...]

    @abstractmethod
    def __call__(self, features: Sequence[Features]) -> Batch:
        """The batch, every tensor padded to its longest row."""

    @property
    def padding(self) -> Literal["longest", "some_full", "full"]:
        """Length to which audio is padded: the longest clip; in some batches the model's whole context; always the whole
        context."""
        return "longest"

    def in_full_context(self) -> Self:
        """The same, every batch padded to the model's whole context; itself where there is no such context."""
        return self

    def with_tasks(self, tasks: tuple[str, ...]) -> Self:
        """The same for these tasks alone."""
        return replace(self, tasks=tasks)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class ParameterGroups:
    """Which parameters a configuration can name.

    patterns: parameter-name patterns (``fnmatch``) by name: ``encoder``, ``feature_encoder``, ``decoder``, ``lna``
        (layer norms and attention), ``blocks`` (last blocks); and of module names ``lora`` (suffixes that adapters go
        to), ``lora_save`` (suffixes of modules trained in full beside them), ``lora_within`` (modules that have adapters
        at all; absent: all). An absent group cannot be asked for.
    rows: parameters of which only these rows are trained where ``blocks`` or adapters are: new tokens.
    frozen: patterns that never get a gradient, whatever the configuration says.
    """

    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()


class FrameDecoder(Protocol):
    """``log_probs float32 [frames, vocabulary]`` of one utterance to its text and words."""

    def __call__(self, log_probs: np.ndarray) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Options of decoding, the same in training, evaluation and transcription.

    beam_width: 1 is greedy. max_new_tokens: bound of an autoregressive decoder; None: by the length of the clip. frames: decodes the frames of a model with a CTC output, for which it is required.
    safeguards: only for a model with the ability `scored`, and only where `training.decoding.predict` decodes; None: one
    decoding, whatever comes out.
    """

    beam_width: int = 1
    max_new_tokens: int | None = None
    frames: FrameDecoder | None = None
    safeguards: Safeguards | None = None

    def generation(self) -> dict[str, Any]:
        """The arguments of transformers' ``generate``."""
        bound = {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        return {"num_beams": self.beam_width, "do_sample": False, **bound}


@dataclass(frozen=True)
class Decoded:
    """The decoded text of one utterance for one task.

    words: with times in seconds, empty where the model gives none. confidence: 0 to 1, None where unknown. ids: token
    ids of the text, as they were generated. alternatives: beams, the best first. quality: how the text was found, where
        safeguards were asked for.
    """

    text: str
    words: tuple[SpokenWord, ...] = ()
    confidence: float | None = None
    ids: tuple[int, ...] = ()
    alternatives: tuple[Any, ...] = ()
    quality: DecodingQuality | None = None


@dataclass(frozen=True, kw_only=True)
class SpeechModel(ABC):
    """What prediction, evaluation and transcription use of a model: encoding, collation and decoding.

    `Architecture` is one with weights that can be trained; `training.runtime` has one for exported folders.

    model: what computes: a torch module, or the engine of an exported folder.
    tasks: the tasks of the model.
    languages: of the speech and of its translation, where an utterance names none (ISO 639 codes; `AUTO`: the model's
        folder names none, and the model detects it).
    sample_rate: of the waveforms that the model takes, in Hz.
    encode, collate: make features of an utterance and a batch of features.
    frames, domains, aligner, attention, language_detection, scored: abilities of the model; None where it does not have
        them.
    """

    model: Any
    tasks: tuple[str, ...]
    languages: tuple[str, str]
    sample_rate: int
    encode: UtteranceEncoder
    collate: BatchCollator
    frames: CtcFrames | None = None
    domains: Domains | None = None
    aligner: Aligner | None = None
    attention: CrossAttention | None = None
    language_detection: LanguageDetection | None = None
    scored: ScoredDecoder | None = None

    @abstractmethod
    def generate(
        self,
        batch: Batch,
        *,
        model: Any = None,
        states: Any = None,
        **generation: Any,
    ) -> Mapping[str, Any]:
        """Token ids that follow the prompt of each row: ``{task: int64 [batch, length]}``.

        Args:
            batch: on the model's device.
            model: a module to use instead of ``self.model`` (the trainer's, with adapters).
            states: the ``encoder_last_hidden_state`` of a forward pass over the batch: the encoder is not run again.
            generation: ``max_new_tokens``, ``num_beams``, … as transformers' ``generate`` takes them.
        """

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """The text of the token ids of one row, special tokens left out. Never sees -100."""

    @property
    @abstractmethod
    def positions(self) -> int | None:
        """Positions of the decoder; None for a model that is not autoregressive."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of weights."""

    @abstractmethod
    def inference(self, model: Any = None) -> AbstractContextManager[None]:
        """A block in which the model decodes: without dropout and gradients; afterwards as it was before."""

    def on_device(self, batch: Batch, model: Any = None) -> Batch:
        """The batch where the model computes."""
        return batch

    def decode(
        self,
        batch: Batch,
        options: DecodeOptions,
        *,
        model: Any = None,
        states: Any = None,
    ) -> dict[str, list[Decoded]]:
        """Decode a batch; words have times where the model gives them.

        The choice of checkpoints, the scores of test sets and transcription all use this method.

        Args:
            batch: on the model's device.
            options: beam width, bound of the length, decoder of the frames.
            model: as for `generate`.
            states: as for `generate`.

        Returns:
            For each task one `Decoded` per row.
        """
        chosen = self.model if model is None else model
        if self.frames is not None:
            assert options.frames is not None
            rows = self.frames.log_probs(chosen, batch, states)
            return {TRANSCRIBE: [options.frames(log_probs) for log_probs in rows]}
        sequences = self.generate(batch, model=chosen, states=states, **options.generation())
        decoded = {
            task: [Decoded(self.text(row), ids=tuple(row)) for row in ids.tolist()]
            for task, ids in sequences.items()
        }
        return self.with_word_times(batch, decoded, model=chosen, states=states)

    def with_word_times(
        self,
        batch: Batch,
        decoded: dict[str, list[Decoded]],
        *,
        model: Any = None,
        states: Any = None,
    ) -> dict[str, list[Decoded]]:
        """The same, transcripts with the times of their words where the model has an `aligner`.

        Args:
            batch: on the model's device.
            decoded: for each task one `Decoded` per row.
            model: as for `generate`.
            states: as for `generate`.
        """
        if self.aligner is None or TRANSCRIBE not in decoded:
            return decoded
        rows = decoded[TRANSCRIBE]
        found = self.align(batch, [row.text for row in rows], model=model, states=states)
        placed = [
            replace(row, words=one.words, confidence=one.confidence)
            for row, one in zip(rows, found, strict=True)
        ]
        return {**decoded, TRANSCRIBE: placed}

    def align(
        self,
        batch: Batch,
        texts: Sequence[str],
        *,
        model: Any = None,
        states: Any = None,
    ) -> list[Decoded]:
        """Give times to the words of given texts; only for a model with an `aligner`.

        Args:
            batch: on the model's device.
            texts: one text per row.
            model: as for `generate`.
            states: as for `generate`.

        Returns:
            One `Decoded` per row: its text, its words with times in seconds, and their mean confidence.
        """
        assert self.aligner is not None
        found = self.aligner(self.model if model is None else model, batch, texts, states=states)
        return [
            Decoded(text, words, mean_confidence(words)) for text, words in zip(texts, found, strict=True)
        ]

    def with_tasks(self, tasks: tuple[str, ...]) -> Self:
        """The same model for these of its tasks only."""
        return replace(
            self, tasks=tasks, encode=self.encode.with_tasks(tasks), collate=self.collate.with_tasks(tasks)
        )

    def with_domain(self, asked: str) -> Self:
        """The same model with the domain ``asked`` in its prompts (one of `ASKED` or a name); only for a model with `domains`."""
        assert self.domains is not None
        return replace(self, encode=replace(self.encode, asked=asked))  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class Architecture(SpeechModel):
    """A model that can be trained, with its processor, encoding, collation and decoding.

    model: its ``forward(**batch, num_items_in_batch=None)`` returns an output with ``loss``: the sum of the
        token losses over all tasks divided by ``num_items_in_batch`` (supervised tokens of the whole
        accumulated batch), or by its own supervised tokens when that is None.
    processor: what stock transformers calls the processor; ``save_pretrained`` writes it beside the weights.
    train_encode, train_collate: `encode` and `collate` for training, where they differ (CTC's silence around clips;
        Whisper's share of batches in full context).
    spectrogram: whether the features' ``input_features`` are a spectrogram ``[frames, bands]`` of mean 0, which
        SpecAugment in the data workers may mask.
    notes: lines for the user on decisions of the build (vocabulary trimmed to …, unseen tokens …).
    long_form: an ability of training; None where the model does not have it.

    The other fields are those of `SpeechModel`.
    """

    Options: ClassVar[type[ModelOptions]]

    model: PreTrainedModel
    processor: ProcessorMixin | Any
    train_encode: UtteranceEncoder | None = None
    train_collate: BatchCollator | None = None
    spectrogram: bool = False
    notes: tuple[str, ...] = ()
    long_form: LongFormTraining | None = None

    @classmethod
    @abstractmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        """Build the model.

        Args:
            options: of the class `Options`.
            context: see `BuildContext`; with ``context.meta`` the model has no weights.

        Raises:
            training.base.errors.UserError: the options contradict each other or name what does not exist.
            training.base.errors.NotInReach: the weights are not available here.
        """

    @abstractmethod
    def parameter_groups(self) -> ParameterGroups:
        """Which parameters a configuration can freeze, adapt or train alone."""

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def decoder_sizes(self) -> DecoderSizes:
        """Sizes of the decoder, for the memory plan; only for an autoregressive model (`positions` is not None)."""
        return sizes_of(self.model.config)

    @contextmanager
    def inference(self, model: Any = None) -> Iterator[None]:
        import torch

        chosen: Any = self.model if model is None else model
        was_training = chosen.training
        chosen.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            chosen.train(was_training)

    def on_device(self, batch: Batch, model: Any = None) -> Batch:
        """The batch with its tensors where the model's weights are."""
        import torch

        device = next((self.model if model is None else model).parameters()).device
        return {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}

    def export_parts(self) -> ExportParts | None:
        """What ``polyvox export`` writes of the model; None: it offers nothing."""
        return None

    def loss(self, batch: Batch, *, items: Any = None, model: Any = None) -> Any:
        """Run the forward pass.

        Args:
            batch: on the model's device.
            items: number of supervised tokens to divide the loss by; None: those of the batch.
            model: a module to use instead of ``self.model``.

        Returns:
            The model's output; ``loss`` is a scalar.
        """
        chosen = self.model if model is None else model
        return chosen(**model_inputs(batch), num_items_in_batch=items)

    def heaviest_inputs(self, example: Example, waveform: np.ndarray, tokens: int) -> Features:
        """Features that need the most memory for a clip of that length: ``tokens`` labels per task, prompt and EOS included.

        Args:
            example: with a text of one word for each task.
            waveform: float32 ``[time]``; its content does not matter.
            tokens: labels that speech of that length may need.
        """
        features = self.encode(example, waveform)
        features["labels"] = {
            task: stretched(ids, features["prompt"][task], tokens) for task, ids in features["labels"].items()
        }
        return features

    def save(self, folder: Path, model: PreTrainedModel) -> None:
        """Write ``model`` (this one, adapters merged) and the processor as stock transformers loads them."""
        model.save_pretrained(folder)
        self.save_processor(folder)

    def save_processor(self, folder: Path) -> None:
        """The processor, and its feature extractor once more under the file name that older readers look for."""
        self.processor.save_pretrained(folder)
        self.processor.feature_extractor.save_pretrained(folder)


def stretched(ids: Sequence[int], prompt: int, length: int) -> list[int]:
    """Labels of ``length`` tokens, made from the labels of one word: its first token is repeated."""
    return [*ids[:prompt], *[ids[prompt]] * max(1, length - prompt - 1), ids[-1]]
