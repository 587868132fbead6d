"""Whisper for transcription and translation of the same clip, pretrained or from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperProcessor,
)

from training.base.errors import UserError
from training.data.example import TASKS, TRANSCRIBE, Example
from training.data.long_form import CUT
from training.models.abilities import CrossAttention, CtcFrames, LanguageDetection, LongFormTraining
from training.models.architecture import Architecture, BuildContext, Decoded, DecodeOptions, ParameterGroups
from training.models.batch import Batch, Features
from training.models.common import SETTINGS
from training.models.common.ctc import head_characters
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.decode import decode_text, prompted, with_ctc_labels
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND
from training.models.common.plain_text import many_text_ids
from training.models.common.sizes import SIZES
from training.models.common.weights import cannot_load, load_whole
from training.models.export_parts import ExportParts
from training.models.options import ModelOptions
from training.models.whisper import config
from training.models.whisper.abilities import DetectLanguage, WhisperScored
from training.models.whisper.collator import FIXED_TOKENS, PREVIOUS_TOKENS, WhisperCollator, WhisperEncode
from training.models.whisper.config import MULTILINGUAL_VOCABULARY, Options
from training.models.whisper.export import export_parts
from training.models.whisper.model import MultitaskWhisper
from training.models.whisper.reading import WhisperReader
from training.models.whisper.tokenizer import START, has_timestamps, languages_of, train_whisper_tokenizer

DETECTS = "language_detection"
"""Key of a folder's settings: whether the model can detect the language."""
GROUPS = {
    "encoder": ("model.encoder.*",),
    "feature_encoder": ("model.encoder.conv1.*", "model.encoder.conv2.*"),
    "decoder": ("model.decoder.*",),
    # LNA (Li et al., 2021): layer norms and attention; what has no pretrained weights must learn in any case.
    "lna": ("*layer_norm*", "*self_attn*", "*encoder_attn*", "ctc_head.*"),
    "lora_save": ("ctc_head",),
    "lora": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


@dataclass(frozen=True, kw_only=True)
class Whisper(Architecture):
    """Whisper for transcription and translation of the same clip, pretrained or from scratch."""

    Options: ClassVar[type[ModelOptions]] = config.Options

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        processor, model = _built(options, context)
        if options.timestamps and not context.meta and not has_timestamps(processor.tokenizer):
            raise UserError(
                f"model.timestamps: the vocabulary of {options.name} has no timestamp tokens (<|0.00|> to <|30.00|>); set "
                "it to 0"
            )
        return cls(**cls.parts(options, processor, model))

    @classmethod
    def parts(
        cls, options: config.Options, processor: WhisperProcessor, model: MultitaskWhisper
    ) -> dict[str, Any]:
        """The fields of the architecture."""
        ctc = CtcCharacters(getattr(model.config, SETTINGS)["ctc_characters"]) if options.ctc_weight else None
        collate = WhisperCollator(
            tasks=options.tasks,
            start_id=model.config.decoder_start_token_id,
            pad_id=processor.tokenizer.eos_token_id,
            context=options.encoder_context,
            margin=options.context_margin_seconds,
            ctc=ctc is not None,
        )
        return {
            "model": model,
            "processor": processor,
            "tasks": options.tasks,
            "sample_rate": processor.feature_extractor.sampling_rate,
            "languages": (options.language, options.target_language or options.language),
            "long_form": LongFormTraining(
                timestamps=options.timestamps,
                previous_text=options.previous_text,
                label_tokens=LabelTokens(processor.tokenizer, timed=options.timestamps > 0),
                most_labels=options.max_label_tokens - FIXED_TOKENS,
                prompt_tokens=PREVIOUS_TOKENS + 1 if options.previous_text else 0,
                cut=0.0 if ctc is not None else CUT,  # the CTC head would have to leave out what is spoken
            ),
            "encode": WhisperEncode(
                processor, options.tasks, options.language, options.max_label_tokens, ctc=ctc
            ),
            "collate": collate,
            "train_collate": replace(collate, full_share=options.full_context_share, mixed=True),
            "attention": CrossAttention(
                WhisperReader(processor.tokenizer, int(model.config.max_target_positions)),  # type: ignore[arg-type]
                head_frames(ctc) if ctc is not None else None,
            ),
            "language_detection": _detection(processor, model),
            "scored": WhisperScored(
                processor.tokenizer,
                model.config.decoder_start_token_id,  # type: ignore[arg-type]
                int(model.config.max_target_positions),  # type: ignore[arg-type]
                int(model.config.vocab_size),  # type: ignore[arg-type]
            ),
        }

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups(patterns=GROUPS, frozen=("model.encoder.embed_positions.weight",))

    @property
    def positions(self) -> int:
        return int(self.model.config.max_target_positions)

    def generate(
        self,
        batch: Batch,
        *,
        model: Any = None,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> Mapping[str, torch.Tensor]:
        """One encoding for all tasks; the prompt of each row is the one that it was trained with."""
        chosen: Any = self.model if model is None else model
        prompts, generation = prompted(batch, self.positions, generation)
        ids = chosen.generate_tasks(batch["input_features"], prompts, states=states, **generation)
        return {task: ids[:, i] for i, task in enumerate(self.tasks)}

    def decode(
        self,
        batch: Batch,
        options: DecodeOptions,
        *,
        model: Any = None,
        states: torch.Tensor | None = None,
    ) -> dict[str, list[Decoded]]:
        """One encoding for the texts and for the times of their words."""
        if states is None and self.aligner is not None:
            chosen: Any = self.model if model is None else model
            with torch.no_grad():
                states = chosen.encode(batch["input_features"])
        return super().decode(batch, options, model=model, states=states)

    def text(self, ids: Sequence[int]) -> str:
        return decode_text(self.processor.tokenizer, ids)

    def export_parts(self) -> ExportParts:
        return export_parts(self)

    def heaviest_inputs(self, example: Example, waveform: np.ndarray, tokens: int) -> Features:
        return with_ctc_labels(super().heaviest_inputs(example, waveform, tokens))


ARCHITECTURE = Whisper


@dataclass(frozen=True)
class LabelTokens:
    """Counts the label tokens of texts without special tokens; with ``timed`` the two times of a segment too."""

    tokenizer: Any
    timed: bool

    def __call__(self, texts: Iterable[str]) -> list[int]:
        return [len(ids) + 2 * self.timed for ids in many_text_ids(self.tokenizer, (f" {t}" for t in texts))]


def _detection(processor: WhisperProcessor, model: MultitaskWhisper) -> LanguageDetection | None:
    """None for a model that has not learnt to predict the language token: from scratch, where no prompt is supervised."""
    if not getattr(model.config, SETTINGS)[DETECTS]:
        return None
    ids = languages_of(processor.tokenizer)
    tokenizer: Any = processor.tokenizer
    start: Any = model.config.decoder_start_token_id
    prompt = tokenizer.convert_tokens_to_ids([f"<|{TRANSCRIBE}|>", "<|notimestamps|>"])
    return LanguageDetection(
        languages=tuple(ids), detect=DetectLanguage(ids, start, tokenizer.eos_token_id, tuple(prompt))
    )


def head_frames(characters: CtcCharacters) -> CtcFrames:
    """The frames of the CTC head on the encoder."""
    return CtcFrames(
        tokens=("", *characters.characters),
        blank=0,
        seconds_per_frame=1 / ENCODER_FRAMES_PER_SECOND,
        log_probs=head_log_probs,
        speller=characters,
    )


def head_log_probs(model: Any, batch: Batch, states: torch.Tensor | None = None) -> list[np.ndarray]:
    """Log probabilities of the head, float32 ``[frames, characters and blank]`` of each row's clip, without padding."""
    logits = model.ctc_head(model.encode(batch["input_features"]) if states is None else states)
    rows = logits.float().log_softmax(dim=-1).cpu().numpy()
    lengths = [max(1, math.ceil(seconds * ENCODER_FRAMES_PER_SECOND)) for seconds in batch["clip_seconds"]]
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _built(options: Options, context: BuildContext) -> tuple[WhisperProcessor, MultitaskWhisper]:
    if context.source is not None:
        return _load(str(context.source), options, context)
    if options.sizes is not None:
        processor = _scratch_processor(options, context)
        return processor, _scratch_model(options, processor, context)
    return _pretrained(options, context)


def _settings(
    options: Options, context: BuildContext, saved: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Settings that a checkpoint stores beside the fields of ``WhisperConfig``."""
    return {
        "type": "whisper",
        "task": options.task,
        "language": options.language,
        "target_language": options.target_language or options.language,
        "encoder_context": options.encoder_context,
        "context_margin_seconds": options.context_margin_seconds,
        "ctc_weight": options.ctc_weight,
        "ctc_characters": head_characters(options.ctc_weight, saved, context.texts),
        DETECTS: False,
    }


def _detects(saved: Mapping[str, Any] | None, model: MultitaskWhisper) -> bool:
    """Whether a loaded model can detect the language: what its folder says; of a stock one and of one of ours from before
    it was said, its vocabulary."""
    if saved is not None and DETECTS in saved:
        return bool(saved[DETECTS])
    multilingual = getattr(model.generation_config, "is_multilingual", None)
    wide = int(model.config.vocab_size) >= MULTILINGUAL_VOCABULARY
    return wide if saved is not None or multilingual is None else bool(multilingual)


def _scratch_processor(options: Options, context: BuildContext) -> WhisperProcessor:
    assert options.sizes is not None
    rows = list(context.texts()) if context.texts is not None else []
    if not rows and not context.meta:
        raise UserError("model.sizes: a tokenizer from scratch needs training texts, and the split has none")
    languages = {language for _, language, _ in rows if language} | {options.language}
    tokenizer = train_whisper_tokenizer(
        (text for _, _, text in rows), options.sizes.get("vocab_size", 1000), languages
    )
    extractor = WhisperFeatureExtractor(feature_size=options.sizes.get("num_mel_bins", 80))
    return WhisperProcessor(extractor, tokenizer)


def _scratch_model(options: Options, processor: WhisperProcessor, context: BuildContext) -> MultitaskWhisper:
    tokenizer = processor.tokenizer
    end = tokenizer.eos_token_id
    sizes = {key: value for key, value in (options.sizes or {}).items() if key != "vocab_size"}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **{"max_target_positions": options.max_label_tokens, **sizes},
    )
    setattr(config, SETTINGS, _settings(options, context))
    with torch.device("meta") if context.meta else torch.device("cpu"):
        model = MultitaskWhisper(config)
    model.generation_config = _generation_config(model, processor)
    return model


def _generation_config(model: PreTrainedModel, processor: WhisperProcessor) -> GenerationConfig:
    """Values of the generation configuration by which stock ``generate`` finds languages and tasks of a model from scratch."""
    vocabulary = processor.tokenizer.get_added_vocab()
    languages = {token: i for token, i in vocabulary.items() if token not in _NOT_LANGUAGES}
    return GenerationConfig(
        max_length=model.config.max_target_positions,
        pad_token_id=model.config.pad_token_id,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
        is_multilingual=True,
        lang_to_id=languages,
        task_to_id={task: vocabulary[f"<|{task}|>"] for task in TASKS},
        no_timestamps_token_id=vocabulary["<|notimestamps|>"],
        prev_sot_token_id=vocabulary["<|startofprev|>"],
        return_timestamps=False,
    )


_NOT_LANGUAGES = {
    "<|endoftext|>",
    START,
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
}


def _pretrained(options: Options, context: BuildContext) -> tuple[WhisperProcessor, MultitaskWhisper]:
    assert options.name is not None
    if context.meta:
        return _public(options, context)
    return _load(options.name, options, context)


def _load(name: str, options: Options, context: BuildContext) -> tuple[WhisperProcessor, MultitaskWhisper]:
    """A hub id or a folder, ours or stock; the settings are the options'."""
    try:
        processor = WhisperProcessor.from_pretrained(name)
        config = WhisperConfig.from_pretrained(name)
        saved = getattr(config, SETTINGS, None)
        setattr(config, SETTINGS, _settings(options, context, saved))
        model = load_whole(
            MultitaskWhisper, name, "model.name", new=("ctc_head.*",), config=config, dtype=torch.float32
        )
        getattr(model.config, SETTINGS)[DETECTS] = _detects(saved, model)
    except (OSError, HFValidationError) as error:  # the latter: a path that is not there
        raise cannot_load("model.name", name, error) from error
    return processor, model


def _public(options: Options, context: BuildContext) -> tuple[WhisperProcessor, MultitaskWhisper]:
    """The shape of a public model without its weights, its tokenizer's place taken by an empty one."""
    if options.name not in SIZES:
        raise UserError(
            f"model.name: {options.name!r} is neither in reach nor among the known sizes {sorted(SIZES)}"
        )
    config = WhisperConfig(**SIZES[options.name]["config"])
    setattr(config, SETTINGS, _settings(options, context))
    with torch.device("meta"):
        model = MultitaskWhisper(config)
    tokenizer = train_whisper_tokenizer([], 256, [options.language])
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=config.num_mel_bins), tokenizer), model
