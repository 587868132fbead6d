"""Speech recognition with CTC, from scratch or fine-tuned: FastConformer, plain Transformer or wav2vec2."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from training.data.example import TRANSCRIBE
from training.errors import UserError
from training.models.architecture import Batch, BuildContext, Bundle, CtcFrames, model_inputs
from training.models.ctc.collator import CtcCollator, CtcEncode, FrameCount, MelFrames
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


class Options(BaseModel):
    """The ``model:`` block of ``model.type: ctc``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: Literal["ctc"] = "ctc"
    """The architecture."""
    task: Literal["transcribe"] = "transcribe"
    """A CTC model transcribes."""
    encoder: Literal["fastconformer", "transformer", "wav2vec2"] = "fastconformer"
    """FastConformer (convolutions and attention over log-mels), a plain Transformer over log-mels, or wav2vec2
    (raw samples)."""
    pretrained: str | None = None
    """Folder of a CTC run, or hub id or folder of a pretrained ``parakeet_ctc`` or wav2vec2: its weights are
    fine-tuned. Where its vocabulary is another one the output layer is made anew."""
    vocabulary: Literal["characters", "bpe"] = "characters"
    """Tokens: characters, or byte-pair pieces learnt from the training split."""
    vocab_size: int = Field(500, ge=2)
    """Pieces, with ``vocabulary: bpe``."""
    languages: tuple[str, ...] = ("vi", "en")
    """Languages whose letters the vocabulary holds, whether the training split has them or not. The first is taken
    for that of utterances that name none."""
    d_model: int = Field(256, ge=8)
    """Width of the encoder."""
    num_encoder_layers: int = Field(6, ge=1)
    """Layers of the encoder."""
    num_heads: int = Field(4, ge=1)
    """Attention heads."""
    d_ff: int = Field(1024, ge=8)
    """Width of the feed-forward layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout, everywhere in the encoder."""
    subsampling: Literal[2, 4, 8] = 4
    """Log-mel frames that become one frame of the encoder (1 frame is 10 ms)."""
    subsampling_channels: int = Field(64, ge=1)
    """Channels of the convolutions that do it."""
    sample_rate: int = Field(16000, ge=1000)
    """Samples per second that the model hears (the same as ``audio.sample_rate``)."""
    n_mels: int = Field(80, ge=8)
    """Mel bands."""
    n_fft: int | None = Field(None, ge=64)
    """Samples of a Fourier transform; null: the power of two above 25 ms."""
    hop_length: int | None = Field(None, ge=1)
    """Samples between frames; null: 10 ms."""
    conv_norm: Literal["batch", "layer"] = "layer"
    """Norm in FastConformer's convolutions. ``batch`` is the published one; with ``layer`` no clip depends on
    the batch that it is in, which several processes need to give the losses of one."""
    conv_kernel: int = Field(0, ge=0)
    """Frames that the convolution module in each layer of the Transformer sees, an odd number; 0: a plain
    Transformer without one. FastConformer has its own (``sizes.conv_kernel_size``)."""
    feature_norm: Literal["bands", "clip", "peak"] = "bands"
    """Log-mels are normalised per clip: each band by its mean and deviation, as pretrained FastConformers expect;
    all bands together by theirs (``clip``), which short clips of a word or two need; or by the loudest point alone
    (``peak``), to which silence around the speech makes no difference."""
    edge_silence: float = Field(0.0, ge=0, le=2)
    """Seconds of silence put before and after every clip in evaluation and use (``feature_norm: peak``); what training
    hears there is drawn, see ``augmentation.shift``, and nothing while ``augmentation.after_epochs`` last."""
    middle_weight: float = Field(0.0, ge=0, lt=1)
    """Share of the training loss that is CTC on the states half way up the encoder (Lee and Watanabe, 2021): a model
    from scratch may learn in fewer steps, and each costs an output layer and a loss more. Not with wav2vec2."""
    sizes: dict[str, Any] = Field(default_factory=dict)
    """Further fields of ``ParakeetEncoderConfig`` (fastconformer) or ``Wav2Vec2Config`` (wav2vec2)."""

    @model_validator(mode="after")
    def _agree(self) -> Options:
        if self.encoder == "transformer" and self.sizes:
            raise ValueError(
                "sizes: the Transformer has d_model, num_encoder_layers, num_heads and d_ff alone"
            )
        if self.conv_kernel and self.encoder != "transformer":
            raise ValueError(f"conv_kernel ({self.conv_kernel}) is only for encoder: transformer")
        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel ({self.conv_kernel}) must be an odd number")
        if self.middle_weight and self.encoder == "wav2vec2":
            raise ValueError(
                f"middle_weight ({self.middle_weight:g}): not for encoder: wav2vec2; set it to 0"
            )
        if self.feature_norm != "bands" and self.encoder == "wav2vec2":
            raise ValueError("feature_norm: wav2vec2 hears samples, not log-mels")
        if self.edge_silence and self.feature_norm != "peak":
            raise ValueError(
                f"edge_silence ({self.edge_silence:g}): other norms than feature_norm: peak would change with it"
            )
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of num_heads ({self.num_heads})")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model can be asked for."""
        return (TRANSCRIBE,)


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
