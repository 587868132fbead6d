"""What the trainer, the evaluation and the export know of an architecture: its `Bundle`, nothing else.

The file name of a module in this folder is the value of ``model.type``. Each such module exposes
``Options`` (a frozen pydantic model: the schema of the ``model:`` block) and
``build(options, context) -> Bundle``. Bricks that architectures share live in ``training/nn``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from training.data.example import Example, SpokenWord
from training.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

Features = dict[str, Any]
"""One encoded example. Always: ``id`` (str), ``seconds`` (float, of audio), ``labels`` ({task: token ids that
follow the decoder's start token: the prompt, the text, EOS; the prompt alone where the example has no text for
the task}) and ``prompt`` ({task: how many leading ids of its labels are prompt}). The rest is the architecture's own input."""

Batch = dict[str, Any]
"""Tensors for the model's ``forward``: the architecture's input, ``decoder_input_ids`` and ``labels``
``[batch, task, length]`` (see `training.models.common.targets.collate_targets`). Beside them what the trainer takes
out before the forward pass: ``ids`` (list of str), ``seconds`` (float: real audio in the batch) and
``prompt_length`` (int: leading columns of ``decoder_input_ids`` that ``generate`` is given)."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What a ``build`` may look at beside its own options.

    ``texts`` iterates over the training split's texts as ``(task, language, text)`` (for tokenizers and
    trimmed vocabularies); it may be called more than once. ``meta=True`` asks for a model without weights
    on the meta device (the dry run, when weights cannot be had). ``source`` is a checkpoint folder to
    restore instead of what the options name.
    """

    texts: Callable[[], Iterable[tuple[str, str | None, str]]] | None = None
    meta: bool = False
    source: Path | None = None
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class CtcFrames:
    """What a decoder of frames (`training.decoding.ctc_decoding`) takes from a model with a CTC output.

    tokens: text of each id of the vocabulary; a word starts at ``▁…`` where there is such a token, else words are
        parted by ``" "`` or ``"|"``. blank: id of the blank, whose text does not count.
    seconds_per_frame: audio that one frame stands for. edge_seconds: silence before the clip (and after it) that the
        first (and last) frames stand for.
    log_probs: ``(model, batch) -> list of float32 [real frames, vocabulary]``, one per row, padding cut off.
    """

    tokens: tuple[str, ...]
    blank: int
    seconds_per_frame: float
    edge_seconds: float = 0.0
    log_probs: Callable[[Any, Batch], list[np.ndarray]]


class Heard(NamedTuple):
    """What `Bundle.listen` gives."""

    batch: Batch
    states: torch.Tensor | None
    domains: list[str | None]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """All that one architecture contributes to a run.

    model: its ``forward(**batch, num_items_in_batch=None)`` returns an output with ``loss``: the sum of the
        token losses over all tasks divided by ``num_items_in_batch`` (supervised tokens of the whole
        accumulated batch), or by its own supervised tokens when that is None.
    processor: what stock transformers calls the processor; ``save_pretrained`` writes it beside the weights.
    languages: of the speech and of its translation, where an utterance names none (ISO 639 codes).
    encode: ``(example, waveform) -> Features``; picklable (it travels to spawned workers). The waveform is
        float32 mono at ``sample_rate``. Raises ``ValueError`` with the reason when the example cannot be
        used (too many label tokens, say); the caller writes it into the drop ledger.
    collate: ``list[Features] -> Batch``; picklable.
    train_encode, train_collate: the same for training, where they differ (CTC's silence around clips; Whisper's share
        of full batches).
    generate: ``(model, batch, *, states=None, **generation) -> {task: token ids [batch, length]}``, the prompt
        left out; the encoder runs once for all tasks, not at all where ``states`` (the
        ``encoder_last_hidden_state`` of a forward pass over the batch) are given; the prompt of each row is the
        one that it was trained with.
    decode: ``(token ids of one row) -> text``, special tokens removed. Never sees -100.
    groups: parameter-name patterns (``fnmatch``) by the name that a configuration uses for them: ``encoder``,
        ``feature_encoder``, ``decoder``, ``lna`` (layer norms and attention), ``lora`` (module-name suffixes
        that adapters go to), ``lora_save`` (suffixes of modules trained in full beside them), ``lora_within`` (modules
        that have adapters at all; absent: all), ``blocks`` (last blocks). An absent group cannot be asked for.
    domains: populations that the model can be told of, by name (``encode`` then has the fields ``domain`` and ``asked``).
    rows: parameters of which only these rows learn where ``blocks`` or adapters do: new tokens.
    listen: ``(model, batch, states=None) -> Heard`` for a model that may complete the prompts itself: the batch with
        complete prompts, the encoder states, and the domain that each utterance was taken for (None: it was told).
    frozen: patterns that never get a gradient, whatever the configuration says.
    notes: lines for the user: what the build decided (vocabulary trimmed to …, unseen tokens …).
    ctc: the frames of a model that is decoded from CTC; None for all others. Its ``generate`` is the best path.
    align: ``(model, batch, texts, states=None) -> list of tuples of SpokenWord``: times and confidence of the
        whitespace-separated words of one given text per row, for a model that can tell them; ``()`` where it finds no
        place for them. ``states`` as for ``generate``.
    given_text: what training scores are the times of the reference's words; nothing is generated for it.
    spectrogram: whether the features' ``input_features`` are a spectrogram ``[frames, bands]`` of mean 0, which
        SpecAugment in the data workers may mask.
    """

    model: PreTrainedModel
    processor: ProcessorMixin | Any
    tasks: tuple[str, ...]
    languages: tuple[str, str]
    sample_rate: int
    encode: Callable[[Example, np.ndarray], Features]
    collate: Callable[[list[Features]], Batch]
    generate: Callable[..., Mapping[str, torch.Tensor]]
    decode: Callable[[Sequence[int]], str]
    groups: Mapping[str, tuple[str, ...]]
    domains: tuple[str, ...] = ()
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    listen: Callable[..., Heard] | None = None
    train_encode: Callable[[Example, np.ndarray], Features] | None = None
    train_collate: Callable[[list[Features]], Batch] | None = None
    frozen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ctc: CtcFrames | None = None
    align: Callable[..., list[tuple[SpokenWord, ...]]] | None = None
    given_text: bool = False
    spectrogram: bool = False


PRETRAINED = ("name", "encoder", "decoder", "pretrained", "audio_encoder", "llm")
"""Keys of a ``model:`` block that may name weights: a hub id or a folder."""
_NOT_INPUTS = ("ids", "seconds", "clip_seconds", "prompt_length", "prompt_lengths")


def model_inputs(batch: Batch) -> Batch:
    """The part of a batch that the model's forward takes."""
    return {key: value for key, value in batch.items() if key not in _NOT_INPUTS}


def new_tokens(wanted: int | None, positions: int, prompt: int) -> int:
    """``max_new_tokens`` that the decoder has positions for: what is wanted, or all that the prompt leaves."""
    room = positions - prompt
    return min(wanted or room, room)


def available() -> tuple[str, ...]:
    """The values that ``model.type`` may take: the modules of this folder, sorted."""
    folder = Path(__file__).parent
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def load(model_type: str) -> ModuleType:
    """Import the architecture's module (``Options``, ``build``); `UserError` names the choices otherwise."""
    if model_type not in available():
        raise UserError(
            f"model.type: unknown architecture {model_type!r}; choose one of {', '.join(available())}"
        )
    return importlib.import_module(f"training.models.{model_type}")
