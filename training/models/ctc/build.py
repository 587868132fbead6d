"""Speech recognition with CTC, from scratch or fine-tuned: FastConformer, plain Transformer or wav2vec2."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from training.data.example import TRANSCRIBE
from training.errors import UserError
from training.models.architecture import Batch, BuildContext, Bundle, CtcFrames, model_inputs
from training.models.ctc.collator import CtcCollator, CtcEncode, FrameCount, MelFrames
from training.models.ctc.config import Options
from training.models.ctc.model import BLANK_ID
from training.models.ctc.parts import Sizes, Sound, pretrained, restore, scratch
from training.models.ctc.processor import CtcProcessor, edge_silence
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.e2e.collator import Frames

GROUPS = {
    "encoder": ("encoder.*", "wav2vec2.*"),
    "feature_encoder": ("encoder.subsampling.*", "wav2vec2.feature_extractor.*"),
    # LNA (Li et al., 2021): layer norms and attention; the head has no pretrained weights and learns in any case.
    "lna": ("*norm*", "*attention*", "*attn.*", "ctc_head.*", "lm_head.*"),
    "lora_save": ("ctc_head", "lm_head"),
    "lora": ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "linear1", "linear2", "intermediate_dense",
             "output_dense", "pointwise1", "pointwise2"),
}  # fmt: skip


def build(options: Options, context: BuildContext) -> Bundle:
    """Model, processor and data functions of a CTC run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        if context.source is not None:
            return _bundle(options, *restore(options.encoder, context.source))
        tokenizer, notes = _vocabulary(options, context)
        sizes = _sizes(options)
        if options.pretrained is not None:
            made = pretrained(sizes, options.pretrained, tokenizer, _said(options), meta=context.meta)
            return _bundle(options, made.model, made.processor, (*notes, *made.notes))
        model, processor = scratch(sizes, tokenizer, meta=context.meta)
        return _bundle(options, model, processor, notes)


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
    """Which of the sizes the configuration names itself: a checkpoint may not contradict those."""
    return frozenset(options.model_fields_set)


def _bundle(options: Options, model: Any, processor: CtcProcessor, notes: tuple[str, ...] = ()) -> Bundle:
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    frames, shift = _frames(options, model, extractor)
    model.middle_weight = options.middle_weight
    spoken = options.languages[0] if options.languages else "und"
    spans = getattr(model.config, "mask_time_length", 0) if options.encoder == "wav2vec2" else 0
    return Bundle(
        model=model,
        processor=processor,
        tasks=options.tasks,
        languages=(spoken, spoken),
        sample_rate=extractor.sampling_rate,
        encode=CtcEncode(extractor, tokenizer, frames),
        train_encode=_without_edges(extractor, tokenizer, frames),
        collate=CtcCollator(shortest=frames.samples(spans + 1) if spans else 1),
        generate=Generate(),
        decode=tokenizer.decode,
        groups=_groups(model),
        notes=notes,
        ctc=CtcFrames(
            tokens=("", *tokenizer.tokens[1:]),
            blank=BLANK_ID,
            seconds_per_frame=shift / extractor.sampling_rate,
            edge_seconds=edge_silence(extractor),
            log_probs=LogProbs(),
        ),
        spectrogram=options.encoder != "wav2vec2",
    )


def _without_edges(extractor: Any, tokenizer: CtcTokenizer, frames: Any) -> CtcEncode | None:
    """The encoder of the training clips where it differs: a silence of always one length would be learnt as a sign."""
    if not edge_silence(extractor):
        return None
    bare = copy.copy(extractor)
    bare.edge_silence = 0.0
    return CtcEncode(bare, tokenizer, replace(frames, edge=0))


def _frames(options: Options, model: Any, extractor: Any) -> tuple[FrameCount, int]:
    """How the encoder shortens a clip, and the samples that one of its frames stands for."""
    config = model.config
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

    return {group: tuple(p for p in patterns if there(group, p)) for group, patterns in GROUPS.items()}


@dataclass(frozen=True)
class LogProbs:
    """``(model, batch) -> float32 [real frames, vocabulary]`` of each row."""

    def __call__(self, model: Any, batch: Batch) -> list[np.ndarray]:
        with torch.no_grad():
            inputs = {name: value for name, value in model_inputs(batch).items() if name != "labels"}
            output = model(**inputs)
            rows = output.logits.float().log_softmax(dim=-1).cpu().numpy()
        return [row[:length] for row, length in zip(rows, output.lengths.tolist(), strict=True)]


@dataclass(frozen=True)
class Generate:
    """The best path: ``{transcribe: labels [batch, length]}``, repetitions merged, filled up with the blank.

    ``states`` of a forward pass are read instead of a second one. Options of decoders that write token after
    token (``max_new_tokens``, ``num_beams``, …) mean nothing here: a path has one label per frame.
    """

    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(
        self, model: Any, batch: Batch, *, states: torch.Tensor | None = None, **generation: Any
    ) -> Mapping[str, torch.Tensor]:
        if states is None:
            sound = batch["input_features"] if "input_features" in batch else batch["input_values"]
            states, lengths = model.states(sound, batch["attention_mask"])
        else:
            lengths = model.lengths(batch["attention_mask"], states)
        paths = model.to_logits(states).argmax(dim=-1)
        rows = [collapsed(path[:n]) for path, n in zip(paths, lengths.tolist(), strict=True)]
        return {TRANSCRIBE: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=BLANK_ID)}


def collapsed(path: torch.Tensor) -> torch.Tensor:
    """Labels of a path ``[frames]``: repetitions merged, blanks left out (Graves et al., 2006)."""
    merged = torch.unique_consecutive(path)
    return merged[merged != BLANK_ID]
