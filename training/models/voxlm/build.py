"""Whisper encoder and language model: transcripts (phase 1), then a start and an end for each word (phase 2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from training.base.errors import NotInReach, UserError
from training.data.example import TRANSCRIBE, Example
from training.models.architecture import Architecture, BuildContext, ParameterGroups, new_tokens
from training.models.batch import Batch, Features
from training.models.common import SETTINGS
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.decode import decode_text, with_ctc_labels
from training.models.common.sizes import SIZES
from training.models.common.weights import cannot_load, load_whole
from training.models.common.whisper_encoder import load_whisper_encoder
from training.models.export_parts import ExportParts
from training.models.options import ModelOptions
from training.models.voxlm import config
from training.models.voxlm.causal_lm import train_tokenizer
from training.models.voxlm.collator import VoxLMCollator, VoxLMEncode
from training.models.voxlm.config import Options
from training.models.voxlm.export import export_parts
from training.models.voxlm.model import SCALED_HEADS, VoxLM
from training.models.voxlm.stored_config import AUDIO, VoxLMConfig, VoxLMProcessor, with_template
from training.models.voxlm.words import PointedWords

GROUPS = {
    "encoder": ("audio_encoder.*",),
    "feature_encoder": ("audio_encoder.conv1.*", "audio_encoder.conv2.*"),
    "decoder": ("language_model.*",),
    "projector": ("projector.*",),
    "aligner": ("aligner.*",),
    "lora": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "lora_save": ("projector",),
    "lora_within": ("language_model.*",),
}
PHASE_1 = ("audio_encoder.*", "projector.*", "language_model.*")


@dataclass(frozen=True, kw_only=True)
class VoxLMArchitecture(Architecture):
    """Whisper encoder and language model: transcripts (phase 1), then a start and an end for each word (phase 2)."""

    Options: ClassVar[type[ModelOptions]] = config.Options

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            source = str(context.source or options.name or "")
            if context.meta and not Path(source or "?").is_dir():
                processor, model = _public(options, context)
            else:
                processor, model = _restored(source, options, context) if source else _new(options, context)
        return cls._of(options, processor, model)

    @classmethod
    def _of(cls, options: config.Options, processor: VoxLMProcessor, model: VoxLM) -> Self:
        before, after = processor.prompt(options.instruction)
        align = model.aligner is not None
        encode = VoxLMEncode(
            processor.feature_extractor,
            processor.tokenizer,
            tuple(after),
            processor.end(),
            max_label_tokens=options.max_label_tokens,
            align=align,
            ctc=CtcCharacters(_settings(model)["ctc_characters"]) if align else None,
        )
        collate = VoxLMCollator(
            context=options.encoder_context,
            margin=options.context_margin_seconds,
            before=tuple(before),
            audio_id=model.config.audio_token_id,  # type: ignore[arg-type]
            pad_id=_pad_id(processor),
            stack=options.stack,
            align=align,
        )
        model.alignment_weight, model.ctc_weight = options.alignment_weight, options.aligner.ctc_weight
        return cls(
            model=model,
            processor=processor,
            tasks=options.tasks,
            languages=(options.language, options.language),
            sample_rate=processor.feature_extractor.sampling_rate,
            encode=encode,
            collate=collate,
            aligner=PointedWords(encode, collate) if align else None,
        )

    def parameter_groups(self) -> ParameterGroups:
        frozen = PHASE_1 if self.aligner is not None else ("audio_encoder.*",)
        return ParameterGroups(patterns=GROUPS, frozen=frozen)

    @property
    def positions(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def generate(
        self,
        batch: Batch,
        *,
        model: Any = None,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> Mapping[str, torch.Tensor]:
        """Behind each row's own prompt."""
        chosen: Any = self.model if model is None else model
        prompts, mask = left_padded(batch["input_ids"], batch["prompt_lengths"], _pad_id(self.processor))  # type: ignore[arg-type]
        wanted = generation.get("max_new_tokens")
        generation["max_new_tokens"] = new_tokens(wanted, self.positions, prompts.shape[1])
        sound = {"input_features": batch["input_features"]} if states is None else {"states": states}
        ids = chosen.generate(
            input_ids=prompts,
            attention_mask=mask,
            frames=batch["frames"],
            longest=batch["longest"],
            **sound,
            **generation,
        )
        return {TRANSCRIBE: ids[:, prompts.shape[1] :]}

    def export_parts(self) -> ExportParts:
        return export_parts(self)

    def text(self, ids: Sequence[int]) -> str:
        return decode_text(self.processor.tokenizer, ids)

    def heaviest_inputs(self, example: Example, waveform: np.ndarray, tokens: int) -> Features:
        features = with_ctc_labels(super().heaviest_inputs(example, waveform, tokens))
        return {**features, **made_up_words(features)}


ARCHITECTURE = VoxLMArchitecture

TOKENS_PER_WORD = 2
"""Tokens of a made-up word in the plan of memory."""


def made_up_words(features: Features) -> dict[str, Any]:
    """Words of `TOKENS_PER_WORD` tokens for the labels, with times where the encoder takes them."""
    ids, prompt = features["labels"][TRANSCRIBE], features["prompt"][TRANSCRIBE]
    tokens = len(ids) - prompt - 1
    words = max(1, tokens // TOKENS_PER_WORD)
    owners = [min(i // TOKENS_PER_WORD, words - 1) for i in range(tokens)]
    found: dict[str, Any] = {"token_words": [*[-1] * prompt, *owners, -1], "words": words}
    if "starts" in features:
        borders = np.linspace(0.0, features["seconds"], words + 1).tolist()
        found |= {"starts": borders[:-1], "ends": borders[1:]}
    return found


def left_padded(
    input_ids: torch.Tensor, lengths: torch.Tensor, pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first ``lengths`` ids of each row, moved to the right end, and their mask: what generation goes on from."""
    longest = int(lengths.max())
    places = torch.arange(longest, device=input_ids.device) - (longest - lengths)[:, None]
    mask = places >= 0
    ids = input_ids.gather(1, places.clamp(min=0)).masked_fill(~mask, pad_id)
    return ids, mask.long()


def _settings(model: VoxLM) -> dict[str, Any]:
    return getattr(model.config, SETTINGS)


def _settings_of(config: VoxLMConfig) -> dict[str, Any]:
    """The settings that a folder stores; empty where it has none."""
    return getattr(config, SETTINGS, None) or {}


def _remember(model: VoxLM, options: Options, characters: str) -> None:
    """Store the settings that a folder must contain."""
    settings = {
        "type": "voxlm",
        "phase": options.phase,
        "language": options.language,
        "instruction": options.instruction,
        "encoder_context": options.encoder_context,
        "context_margin_seconds": options.context_margin_seconds,
        "stack": options.stack,
        "ctc_characters": characters,
    }
    setattr(model.config, SETTINGS, settings)


def _pad_id(processor: VoxLMProcessor) -> int:
    tokenizer: Any = processor.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


# A model of two


def _new(options: Options, context: BuildContext) -> tuple[VoxLMProcessor, VoxLM]:
    assert options.audio_encoder is not None and options.llm is not None
    encoder, extractor = load_whisper_encoder("model.audio_encoder", options.audio_encoder, _type(options))
    language_model, tokenizer = _language_model(options)
    processor = VoxLMProcessor(extractor, _prepared(tokenizer))
    rows = language_model.get_input_embeddings().num_embeddings
    processor.check_tokens(options.instruction, rows)
    config = _config(options, encoder.config, language_model.config, processor)
    model = VoxLM(config, encoder, language_model)
    model.projector.match(language_model.get_input_embeddings())
    model.generation_config = _generation_config(processor, config)
    _remember(model, options, "")
    return processor, model


def _language_model(options: Options) -> tuple[Any, Any]:
    name = str(options.llm)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = load_whole(AutoModelForCausalLM, name, "model.llm", dtype=_type(options))
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise cannot_load("model.llm", name, error) from error
    if scaled := [field for field in SCALED_HEADS if getattr(model.config, field, None)]:
        raise UserError(
            f"model.llm: {name!r} is a {model.config.model_type}, whose logits are scaled ({scaled[0]}); that is not "
            "supported, name another language model"
        )
    return model, tokenizer


def _as_frozen(model: VoxLM, options: Options) -> None:
    """Encoder and language model in the type of weights that never learn."""
    parts: tuple[torch.nn.Module, ...] = (model.audio_encoder, model.language_model)
    for part in parts:
        part.to(_type(options))


def _type(options: Options) -> torch.dtype:
    return torch.bfloat16 if options.frozen_weights == "bf16" else torch.float32


def _prepared(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"extra_special_tokens": [AUDIO]})
    tokenizer.padding_side = "left"
    return with_template(tokenizer)


def _config(options: Options, audio: Any, text: Any, processor: VoxLMProcessor) -> VoxLMConfig:
    # Copies: a configuration that takes others in resets their choice of attention, on which the parts still run.
    return VoxLMConfig(
        audio_config=copy.deepcopy(audio),
        text_config=copy.deepcopy(text),
        audio_token_id=processor.tokenizer.convert_tokens_to_ids(AUDIO),
        stack=options.stack,
        projector_width=options.projector_width or 2 * text.hidden_size,
        projector_scaled=True,
    )


def _generation_config(processor: VoxLMProcessor, config: VoxLMConfig) -> GenerationConfig:
    placeholder = config.audio_token_id
    has_row = placeholder is not None and placeholder < config.text_config.vocab_size  # type: ignore[union-attr]
    return GenerationConfig(
        eos_token_id=processor.end(),
        pad_token_id=_pad_id(processor),
        suppress_tokens=[placeholder] if has_row else None,
    )


ASSUMED_CHARACTERS = 40
"""That the second loss of phase 2 spells where no text says so."""


def _public(options: Options, context: BuildContext) -> tuple[VoxLMProcessor, VoxLM]:
    """The shape of public models without their weights, a small tokenizer in the place of the language model's."""
    for key in ("audio_encoder", "llm"):
        if getattr(options, key) not in SIZES:
            raise UserError(
                f"model.{key}: {getattr(options, key)!r} is neither in reach nor among the known sizes {sorted(SIZES)}"
            )
    audio, text = SIZES[str(options.audio_encoder)], SIZES[str(options.llm)]
    extractor = WhisperFeatureExtractor(**audio["extractor"])
    processor = VoxLMProcessor(extractor, _prepared(train_tokenizer([], 300)))
    text_config = AutoConfig.for_model(text["model_type"], **text["config"])
    config = _config(options, WhisperConfig(**audio["config"]), text_config, processor)
    characters = (_characters(context) or "?" * ASSUMED_CHARACTERS) if options.phase == 2 else ""
    if options.phase == 2:
        config.aligner = _aligner(options, config, len(characters))
    with torch.device("meta"):
        model = VoxLM(config)
    _as_frozen(model, options)
    _remember(model, options, characters)
    return processor, model


# A model to go on with


def _restored(source: str, options: Options, context: BuildContext) -> tuple[VoxLMProcessor, VoxLM]:
    if not Path(source).is_dir():
        raise NotInReach(f"model.name: {source!r} is not there; train phase 1 first, or name its folder")
    config, processor = _opened(source)
    _check_learnt(source, options, config)
    characters = _settings_of(config).get("ctc_characters", "")
    if options.phase == 2 and config.aligner is None:
        characters = _characters(context)
        config.aligner = _aligner(options, config, len(characters))
    try:
        model = load_whole(
            VoxLM, source, "model.name", new=("aligner.*",), config=config, dtype=torch.float32
        )
    except (OSError, SafetensorError) as error:
        raise _no_voxlm(source, error) from error
    _as_frozen(model, options)
    _remember(model, options, characters)
    return processor, model


def _opened(source: str) -> tuple[VoxLMConfig, VoxLMProcessor]:
    """Configuration and processor of a folder; `UserError` where it holds no VoxLM."""
    try:
        config = AutoConfig.from_pretrained(source)
        if not isinstance(config, VoxLMConfig):
            raise ValueError(f"it is a {config.model_type}")
        return config, VoxLMProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _no_voxlm(source, error) from error


def _no_voxlm(source: str, error: Exception) -> UserError:
    return UserError(
        f"model.name: {source!r} holds no whole VoxLM ({str(error).strip().partition(chr(10))[0]}); name the folder of a "
        "finished run (its checkpoints hold adapters alone)"
    )


LEARNT = ("instruction", "encoder_context", "context_margin_seconds")
"""Settings that the text of phase 1 depends on; phase 2 does not change that text."""


def _check_learnt(source: str, options: Options, config: VoxLMConfig) -> None:
    """`UserError` where the options are not those that the folder's weights have learnt with."""
    learnt = {"stack": config.stack}
    if options.phase == 2:
        learnt |= {key: value for key, value in _settings_of(config).items() if key in LEARNT}
    elif config.aligner is not None:
        raise UserError(
            f"model.name: {source!r} has been through phase 2, and its text is frozen; name the folder of phase 1, or set "
            "training.phase=2"
        )
    for key, value in learnt.items():
        if (asked := getattr(options, key)) != value:
            raise UserError(
                f"model.{key}: {asked!r}, but {source!r} has learnt with {value!r}; set it to that"
            )


def _characters(context: BuildContext) -> str:
    texts = context.texts() if context.texts is not None else ()
    return CtcCharacters.of(text for task, _, text in texts if task == TRANSCRIBE).characters


def _aligner(options: Options, config: VoxLMConfig, characters: int) -> dict[str, Any]:
    size = options.aligner
    return {
        "frame_width": config.audio_config.d_model,  # type: ignore[union-attr]
        "word_width": config.text_config.hidden_size,  # type: ignore[union-attr]
        "width": size.width,
        "layers": size.layers,
        "heads": size.heads,
        "dropout": size.dropout,
        "characters": characters,
    }
