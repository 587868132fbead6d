"""Speech recognition with CTC, from scratch or fine-tuned: FastConformer, plain Transformer, wav2vec2 or Whisper's encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from training.base.errors import UserError
from training.data.example import TRANSCRIBE
from training.models.abilities import CtcFrames
from training.models.architecture import Architecture, BatchCollator, BuildContext, ParameterGroups
from training.models.batch import Batch
from training.models.ctc import config
from training.models.ctc.collator import CtcCollator, CtcEncode, FrameCount, MelFrames
from training.models.ctc.config import NO_WHISPER, Options
from training.models.ctc.export import export_parts
from training.models.ctc.model import BLANK_ID
from training.models.ctc.parts import Sizes, Sound, pretrained, restore, scratch
from training.models.ctc.processor import CtcProcessor, edge_silence
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.ctc.whisper import WhisperCtc
from training.models.ctc.whisper_inputs import WhisperCtcCollator, WhisperCtcEncode, WhisperFrames
from training.models.ctc.whisper_parts import on_whisper
from training.models.e2e.collator import Frames
from training.models.export_parts import ExportParts
from training.models.options import ModelOptions

GROUPS = {
    "encoder": ("encoder.*", "wav2vec2.*"),
    "feature_encoder": ("encoder.subsampling.*", "wav2vec2.feature_extractor.*", "encoder.conv1.*", "encoder.conv2.*"),
    # LNA (Li et al., 2021): layer norms and attention; the head has no pretrained weights and learns in any case.
    "lna": ("*norm*", "*attention*", "*attn.*", "head_layers.*", "ctc_head.*", "lm_head.*"),
    "lora_save": ("ctc_head", "lm_head", "head_layers"),
    "lora": ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "linear1", "linear2", "intermediate_dense",
             "output_dense", "pointwise1", "pointwise2", "fc1", "fc2"),
}  # fmt: skip
CONTEXT = ("encoder_context", "context_margin_seconds")
"""Settings that a folder on a Whisper's encoder stores."""


@dataclass(frozen=True, kw_only=True)
class Ctc(Architecture):
    """Speech recognition with CTC, from scratch or fine-tuned: FastConformer, plain Transformer, wav2vec2 or Whisper's encoder."""

    Options: ClassVar[type[ModelOptions]] = config.Options

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            if context.source is not None:
                return cls._of(options, *restore(options.encoder, context.source))
            tokenizer, notes = _vocabulary(options, context)
            sizes = _sizes(options)
            if options.encoder == "whisper":
                made = on_whisper(sizes, *_origin(options), tokenizer, _said(options), meta=context.meta)
                return cls._of(options, made.model, made.processor, (*notes, *made.notes))
            if options.pretrained is not None:
                made = pretrained(sizes, options.pretrained, tokenizer, _said(options), meta=context.meta)
                return cls._of(options, made.model, made.processor, (*notes, *made.notes))
            model, processor = scratch(sizes, tokenizer, meta=context.meta)
            return cls._of(options, model, processor, notes)

    @classmethod
    def _of(
        cls, options: config.Options, model: Any, processor: CtcProcessor, notes: tuple[str, ...] = ()
    ) -> Self:
        extractor, tokenizer = processor.feature_extractor, processor.tokenizer
        frames, shift = _frames(options, model, extractor)
        model.middle_weight = options.middle_weight
        spoken = options.languages[0] if options.languages else "und"
        read = CtcFrames(
            tokens=("", *tokenizer.tokens[1:]),
            blank=BLANK_ID,
            seconds_per_frame=shift / extractor.sampling_rate,
            edge_seconds=edge_silence(extractor),
            log_probs=log_probs,
            speller=tokenizer,
        )
        return cls(
            model=model,
            processor=processor,
            tasks=options.tasks,
            languages=(spoken, spoken),
            sample_rate=extractor.sampling_rate,
            encode=_encode(options, extractor, tokenizer, frames),
            train_encode=_without_edges(extractor, tokenizer, frames),
            collate=_collate(options, model, frames),
            notes=notes,
            frames=read,
            spectrogram=options.encoder != "wav2vec2",
        )

    def parameter_groups(self) -> ParameterGroups:
        positions = ("encoder.embed_positions.weight",) if isinstance(self.model, WhisperCtc) else ()
        return ParameterGroups(patterns=_groups(self.model), frozen=positions)

    @property
    def positions(self) -> None:
        return None

    def generate(
        self,
        batch: Batch,
        *,
        model: Any = None,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> Mapping[str, torch.Tensor]:
        """The best path: labels, repetitions merged, filled up with the blank. ``generation`` means nothing here."""
        assert self.frames is not None
        rows = self.frames.log_probs(self.model if model is None else model, batch, states)
        paths = [collapsed(torch.from_numpy(row).argmax(dim=-1)) for row in rows]
        return {TRANSCRIBE: torch.nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=BLANK_ID)}

    def export_parts(self) -> ExportParts:
        return export_parts(self)

    def text(self, ids: Sequence[int]) -> str:
        return self.processor.tokenizer.decode(ids)


ARCHITECTURE = Ctc


def _vocabulary(options: Options, context: BuildContext) -> tuple[CtcTokenizer, tuple[str, ...]]:
    texts = list(_transcripts(context))
    if not texts and not context.meta:
        raise UserError("model.vocabulary: is made of the training split's transcripts, and it has none")
    if options.vocabulary == "bpe":
        tokenizer = CtcTokenizer.bpe(texts, options.vocab_size, options.languages)
    else:
        tokenizer = CtcTokenizer.characters(texts, options.languages)
    return tokenizer, (f"vocabulary: {len(tokenizer)} {options.vocabulary} tokens, the blank among them",)


def _transcripts(context: BuildContext) -> Iterator[str]:
    rows = context.texts() if context.texts is not None else ()
    return (text for task, _, text in rows if task == TRANSCRIBE)


def _sizes(options: Options) -> Sizes:
    return Sizes(
        encoder=options.encoder,
        width=options.d_model,
        layers=options.num_encoder_layers,
        heads=options.num_heads,
        feed_forward=options.d_ff,
        dropout=options.dropout,
        subsampling=options.subsampling,
        subsampling_channels=options.subsampling_channels,
        conv_norm=options.conv_norm,
        conv_kernel=options.conv_kernel,
        more=options.sizes,
        head_layers=options.head_layers,
        settings={key: getattr(options, key) for key in CONTEXT} if options.encoder == "whisper" else {},
        sound=Sound(
            options.sample_rate,
            options.n_mels,
            options.n_fft,
            options.hop_length,
            options.feature_norm,
            options.edge_silence,
        ),
    )


def _said(options: Options) -> frozenset[str]:
    """Names of the sizes that the configuration sets; a checkpoint must not contradict them."""
    if options.encoder != "whisper":
        return frozenset(options.model_fields_set)
    # A run's own configuration names all sizes; a Whisper has others than the default ones.
    defaults = {name: one.default for name, one in type(options).model_fields.items()}
    return frozenset(name for name in options.model_fields_set if getattr(options, name) != defaults[name])


def _origin(options: Options) -> tuple[str, str]:
    """The key that names the weights of ``encoder: whisper``, and its value."""
    for key in ("pretrained", "name"):
        if (value := getattr(options, key)) is not None:
            return f"model.{key}", value
    raise UserError(f"model.name: {NO_WHISPER}")


def _encode(options: Options, extractor: Any, tokenizer: CtcTokenizer, frames: FrameCount) -> CtcEncode:
    kind = WhisperCtcEncode if options.encoder == "whisper" else CtcEncode
    return kind(extractor, tokenizer, frames)


def _collate(options: Options, model: Any, frames: FrameCount) -> BatchCollator:
    if options.encoder == "whisper":
        context = options.encoder_context or "trimmed"
        return WhisperCtcCollator(context=context, margin=options.context_margin_seconds)
    spans = getattr(model.config, "mask_time_length", 0) if options.encoder == "wav2vec2" else 0
    return CtcCollator(shortest=frames.samples(spans + 1) if spans else 1)


def _without_edges(extractor: Any, tokenizer: CtcTokenizer, frames: Any) -> CtcEncode | None:
    """The encoder of the training clips where it differs: a silence of always one length would be learnt as a sign."""
    if not edge_silence(extractor):
        return None
    bare = copy.copy(extractor)
    bare.edge_silence = 0.0
    return CtcEncode(bare, tokenizer, replace(frames, edge=0))


def _frames(options: Options, model: Any, extractor: Any) -> tuple[FrameCount, int]:
    """The frame counts of the encoder, and the number of samples of one of its frames."""
    config = model.config
    if options.encoder == "whisper":
        return WhisperFrames(extractor.hop_length), 2 * extractor.hop_length
    if options.encoder == "wav2vec2":
        layers = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        return Frames(layers), int(np.prod(config.conv_stride))
    factor = getattr(config, "encoder_config", config).subsampling_factor
    edge = round(edge_silence(extractor) * extractor.sampling_rate)
    return MelFrames(extractor.hop_length, factor, edge), extractor.hop_length * factor


def _groups(model: Any) -> Mapping[str, tuple[str, ...]]:
    """`GROUPS` less the patterns of other encoders: a pattern that matches nothing is an error."""
    from fnmatch import fnmatchcase

    names = [name for name, _ in model.named_parameters()]
    # `MultiheadAttention` reads the weights of its output layer and never calls it: an adapter there learns nothing.
    modules = [
        name for name, one in model.named_modules() if not isinstance(one, NonDynamicallyQuantizableLinear)
    ]

    def there(group: str, pattern: str) -> bool:
        if group.startswith("lora"):
            return any(name.endswith(pattern) for name in modules)
        return any(fnmatchcase(name, pattern) for name in names)

    found = {group: tuple(p for p in patterns if there(group, p)) for group, patterns in GROUPS.items()}
    # What is new above a Whisper's encoder learns in full, beside the adapters.
    return {**found, "lora_within": ("encoder.*",)} if isinstance(model, WhisperCtc) else found


def log_probs(model: Any, batch: Batch, states: torch.Tensor | None = None) -> list[np.ndarray]:
    """float32 ``[real frames, vocabulary]`` of each row; ``states`` of a forward pass are read instead of a second one."""
    with torch.no_grad():
        if states is None:
            sound = batch["input_features"] if "input_features" in batch else batch["input_values"]
            states, lengths = model.states(sound, batch["attention_mask"])
        else:
            lengths = model.lengths(batch["attention_mask"], states)
        rows = model.to_logits(states).float().log_softmax(dim=-1).cpu().numpy()
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


def collapsed(path: torch.Tensor) -> torch.Tensor:
    """Labels of a path ``[frames]``: repetitions merged, blanks left out (Graves et al., 2006)."""
    merged = torch.unique_consecutive(path)
    return merged[merged != BLANK_ID]
