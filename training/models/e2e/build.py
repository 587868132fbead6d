"""Speech encoder and mBART decoder: direct speech recognition and translation, pretrained or from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    MBart50Tokenizer,
    PreTrainedModel,
    SpeechEncoderDecoderConfig,
    Wav2Vec2FeatureExtractor,
)

from training.base.errors import UserError
from training.data.example import Example
from training.models.architecture import Architecture, BuildContext, ParameterGroups
from training.models.batch import Batch, Features
from training.models.common import SETTINGS
from training.models.common.ctc import head_characters
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.decode import decode_text, prompted, with_ctc_labels
from training.models.common.weights import load_whole
from training.models.e2e import config
from training.models.e2e.collator import E2ECollator, E2EEncode, Frames
from training.models.e2e.config import Options
from training.models.e2e.export import export_parts
from training.models.e2e.model import SpeechTranslationModel
from training.models.e2e.parts import (
    load_decoder,
    load_encoder,
    load_tokenizer,
    public_decoder,
    public_encoder,
    scratch_decoder,
    scratch_encoder,
    set_vocabulary,
)
from training.models.e2e.processor import SpeechProcessor
from training.models.e2e.tokenizer import (
    TASK_TOKENS,
    extend_tokenizer,
    language_token,
    train_mbart_tokenizer,
    trim_tokenizer,
)
from training.models.export_parts import ExportParts
from training.models.options import ModelOptions

STAND_IN_TEXTS = 20_000
STAND_IN_PIECES = 8_000
ASSUMED_TRIMMED = 20_000
"""Ids that a dry run expects of a trimmed vocabulary when it cannot be computed."""

GROUPS = {
    "encoder": ("encoder.*",),
    "feature_encoder": ("encoder.feature_extractor.*",),
    "decoder": ("decoder.*",),
    # LNA (Li et al., 2021): layer norms and attention; what has no pretrained weights must learn in any case.
    "lna": ("*layer_norm*", "*layernorm*", "*attention*", "*_attn.*", "enc_to_dec_proj.*", "ctc_head.*"),
    "lora_save": ("enc_to_dec_proj", "ctc_head"),
    "lora": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "intermediate_dense", "output_dense"),
}


@dataclass(frozen=True)
class _Parts:
    encoder: PreTrainedModel
    decoder: PreTrainedModel
    extractor: Wav2Vec2FeatureExtractor
    tokenizer: MBart50Tokenizer
    vocabulary_map: list[int | None] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class E2E(Architecture):
    """Speech encoder and mBART decoder: direct speech recognition and translation, pretrained or from scratch."""

    Options: ClassVar[type[ModelOptions]] = config.Options

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            if context.source is not None:
                return cls._of(options, *_restore(options, context, context.source))
            scratch = options.sizes is not None
            parts = _from_scratch(options, context) if scratch else _pretrained(options, context)
            characters = head_characters(options.ctc_weight, None, context.texts)
            processor = SpeechProcessor(parts.extractor, parts.tokenizer, parts.vocabulary_map)
            return cls._of(options, _assemble(options, parts, characters), processor, parts.notes)

    @classmethod
    def _of(
        cls,
        options: config.Options,
        model: SpeechTranslationModel,
        processor: SpeechProcessor,
        notes: tuple[str, ...] = (),
    ) -> Self:
        _check(options, model)
        encoder, tokenizer = model.config.encoder, processor.tokenizer
        frames = Frames(_convolutions(encoder))
        ctc = CtcCharacters(getattr(model.config, SETTINGS)["ctc_characters"]) if options.ctc_weight else None
        return cls(
            model=model,
            processor=processor,
            tasks=options.tasks,
            sample_rate=processor.feature_extractor.sampling_rate,
            languages=options.languages,
            encode=E2EEncode(
                processor.feature_extractor,
                tokenizer,
                options.tasks,
                _languages(options, tokenizer),
                frames,
                options.max_label_tokens,
                ctc=ctc,
            ),
            collate=E2ECollator(
                options.tasks,
                start_id=tokenizer.eos_token_id,
                pad_id=tokenizer.pad_token_id,
                min_samples=frames.samples(getattr(encoder, "mask_time_length", 0) + 1),
                ctc=ctc is not None,
            ),
            notes=notes,
        )

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups(patterns=GROUPS)

    @property
    def positions(self) -> int:
        return int(self.model.config.decoder.max_position_embeddings)

    def generate(
        self,
        batch: Batch,
        *,
        model: Any = None,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> Mapping[str, torch.Tensor]:
        """One encoding for all tasks."""
        chosen: Any = self.model if model is None else model
        prompts, generation = prompted(batch, self.positions, generation)
        ids = chosen.generate_tasks(
            batch["input_values"],
            prompts,
            attention_mask=batch["attention_mask"],
            states=states,
            **generation,
        )
        return {task: ids[:, i] for i, task in enumerate(self.tasks)}

    def export_parts(self) -> ExportParts:
        return export_parts(self)

    def text(self, ids: Sequence[int]) -> str:
        return decode_text(self.processor.tokenizer, ids)

    def heaviest_inputs(self, example: Example, waveform: np.ndarray, tokens: int) -> Features:
        return with_ctc_labels(super().heaviest_inputs(example, waveform, tokens))


ARCHITECTURE = E2E


def _from_scratch(options: Options, context: BuildContext) -> _Parts:
    assert options.sizes is not None
    texts = list(_texts(context))
    if not texts and not context.meta:
        raise UserError("model.sizes: a tokenizer from scratch needs training texts, and the split has none")
    tokenizer = train_mbart_tokenizer(texts, options.sizes.vocab_size)
    tokenizer = extend_tokenizer(tokenizer, _control_tokens(options, context))
    with torch.device("meta" if context.meta else "cpu"):
        encoder = scratch_encoder(options.sizes.encoder)
        decoder = scratch_decoder(options.sizes.decoder, len(tokenizer), options.max_label_tokens)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=encoder.config.feat_extract_norm == "layer")
    return _Parts(
        encoder, decoder, extractor, tokenizer, notes=(f"tokenizer from scratch: {len(tokenizer)} ids",)
    )


def _pretrained(options: Options, context: BuildContext) -> _Parts:
    assert options.encoder is not None and options.decoder is not None
    if context.meta:
        encoder, extractor = public_encoder(options.encoder)
        decoder = public_decoder(options.decoder)
    else:
        encoder, extractor = load_encoder(options.encoder)
        decoder = load_decoder(options.decoder)
    tokenizer, ids, notes = _vocabulary(options, context, decoder.config.vocab_size)
    set_vocabulary(decoder, ids)
    return _Parts(encoder, decoder, extractor, tokenizer, ids if options.trim_vocabulary else None, notes)


def _vocabulary(
    options: Options, context: BuildContext, rows: int
) -> tuple[MBart50Tokenizer, list[int | None], tuple[str, ...]]:
    """Tokenizer with the run's control tokens, for each row of the new embedding its old row, and notes."""
    assert options.decoder is not None
    known: Sequence[int | None] = range(rows)
    try:
        tokenizer = load_tokenizer(options.decoder, local=context.meta)
    except UserError:
        if not context.meta:
            raise
        return _assumed_vocabulary(options, context, rows)
    notes: tuple[str, ...] = ()
    if options.trim_vocabulary:
        if not any(True for _ in _texts(context)):
            if context.meta:
                return _assumed_vocabulary(options, context, rows)
            raise UserError("model.trim_vocabulary: needs training texts, and the split has none")
        tokenizer, known = trim_tokenizer(tokenizer, _texts(context))
        notes = (f"vocabulary trimmed from {rows:,} to {len(known):,} ids",)
    tokenizer = extend_tokenizer(tokenizer, _control_tokens(options, context))
    # A matrix may have more rows than the tokenizer has tokens; new tokens take those first.
    return tokenizer, [*known, *[None] * (len(tokenizer) - len(known))], notes


def _assumed_vocabulary(
    options: Options, context: BuildContext, rows: int
) -> tuple[MBart50Tokenizer, list[int | None], tuple[str, ...]]:
    """For a dry run without the tokenizer or the texts: a stand-in made from what there is, and a note."""
    control = _control_tokens(options, context)
    stand_in = train_mbart_tokenizer(islice(_texts(context), STAND_IN_TEXTS), STAND_IN_PIECES)
    new = len(control) - sum(token in stand_in.get_vocab() for token in control)
    kept = min(rows, ASSUMED_TRIMMED) if options.trim_vocabulary else rows
    notes = [f"not checked: the tokenizer of {options.decoder}; token counts are those of a stand-in"]
    if options.trim_vocabulary:
        notes.append(f"not checked: the trimmed vocabulary; {kept:,} of {rows:,} ids assumed")
    return extend_tokenizer(stand_in, control), [*range(kept), *[None] * new], tuple(notes)


def _texts(context: BuildContext) -> Iterator[str]:
    return (text for _, _, text in context.texts()) if context.texts is not None else iter(())


def _control_tokens(options: Options, context: BuildContext) -> list[str]:
    """Task tokens and the tokens of all languages of the run; those that a tokenizer has already cost nothing."""
    rows = context.texts() if context.texts is not None else ()
    languages = {language for _, language, _ in rows if language}
    return [*TASK_TOKENS.values(), *sorted(map(language_token, languages | set(options.languages)))]


def _languages(options: Options, tokenizer: MBart50Tokenizer) -> tuple[str, str]:
    """The options' languages as tokens of the tokenizer."""
    source, target = map(language_token, options.languages)
    for key, token in (("language", source), ("target_language", target)):
        if token not in tokenizer.all_special_tokens:
            raise UserError(f"model.{key}: the tokenizer of this checkpoint has no token {token!r}")
    return source, target


def _assemble(options: Options, parts: _Parts, characters: str) -> SpeechTranslationModel:
    config: Any = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        parts.encoder.config, parts.decoder.config
    )
    tokenizer = parts.tokenizer
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    # mBART's decoder input starts with </s> and goes on with the language code; the code is part of the prompt.
    config.decoder_start_token_id = tokenizer.eos_token_id
    setattr(config, SETTINGS, _settings(options, parts.extractor, characters))
    with torch.device("meta" if parts.decoder.device.type == "meta" else "cpu"):
        model = SpeechTranslationModel(config, parts.encoder, parts.decoder)
    if parts.decoder.device.type == "meta":
        torch.nn.Module.to(model, "meta")  # SpecAugment's mask embedding ignores the device context
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        max_new_tokens=options.max_label_tokens,
    )
    return model


def _settings(options: Options, extractor: Wav2Vec2FeatureExtractor, characters: str) -> dict[str, Any]:
    """Settings that a checkpoint stores beside the fields of the stock configuration."""
    return {
        "type": "e2e",
        "task": options.task,
        "language": options.languages[0],
        "target_language": options.languages[1],
        "ctc_weight": options.ctc_weight,
        "ctc_characters": characters,
        "mask_encoder": bool(extractor.return_attention_mask),
    }


_NEW = ("ctc_head.*", "enc_to_dec_proj.*", "*masked_spec_embed")
"""Parameters that a folder of this shape may do without: they are made when the configuration asks for them."""


def _restore(
    options: Options, context: BuildContext, source: Path
) -> tuple[SpeechTranslationModel, SpeechProcessor]:
    processor = SpeechProcessor.from_pretrained(source)
    config = SpeechEncoderDecoderConfig.from_pretrained(source)
    characters = head_characters(options.ctc_weight, getattr(config, SETTINGS, None), context.texts)
    setattr(config, SETTINGS, _settings(options, processor.feature_extractor, characters))
    model = load_whole(
        SpeechTranslationModel, str(source), "model", new=_NEW, config=config, dtype=torch.float32
    )
    return model, processor


def _convolutions(encoder: Any) -> tuple[tuple[int, int], ...]:
    """Kernel and stride of everything that shortens the input, wav2vec2's own adapter included."""
    layers = list(zip(encoder.conv_kernel, encoder.conv_stride, strict=True))
    if getattr(encoder, "add_adapter", False):
        layers += [(1, encoder.adapter_stride)] * encoder.num_adapter_layers
    return tuple(layers)


def _check(options: Options, model: SpeechTranslationModel) -> None:
    """Refuse what would fail later, or would quietly do something else than asked."""
    encoder: Any = model.config.encoder
    decoder: Any = model.config.decoder
    if not options.add_adapter and hasattr(model, "enc_to_dec_proj"):
        raise UserError(
            f"model.add_adapter: false, but the encoder is {model.encoder_output_dim} wide and the decoder "
            f"{decoder.hidden_size}; set it to true"
        )
    if model.encoder_output_dim != encoder.hidden_size:
        raise UserError(
            "model.encoder: an adapter that changes the encoder's width is not supported by transformers"
        )
    if options.max_label_tokens > decoder.max_position_embeddings:
        raise UserError(
            f"model.max_label_tokens: {options.max_label_tokens}, but the decoder has "
            f"{decoder.max_position_embeddings} positions"
        )
