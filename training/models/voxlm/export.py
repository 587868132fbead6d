"""What a VoxLM offers for export: its description and its graphs. A run's folder has its adapters merged already."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from training.models.architecture import Architecture
from training.models.common.feature_graphs import log_mel_part, log_mel_settings
from training.models.export_parts import (
    CTRANSLATE2,
    GGML,
    NEMO,
    ONNX,
    ContextRule,
    Description,
    ExportParts,
    OnnxModel,
    OnnxPart,
    Part,
    Refused,
    SpokenPrompt,
    TokenizerFile,
)
from training.models.voxlm.graphs import FULL, SLIDING, AlignerGraph, EncoderGraph, LanguageModelGraph

FRAMES, WORDS = 100, 7
"""Log-mels and words that the graphs are exported with; they take any other number."""


def export_parts(voxlm: Architecture) -> ExportParts:
    """The parts of a VoxLM."""
    return ExportParts(
        description=describe(voxlm),
        save_text=TokenizerFile(voxlm.processor.tokenizer),
        arrays={},
        formats={
            ONNX: _onnx(voxlm),
            CTRANSLATE2: Refused("CTranslate2 has no model of a speech encoder with a language model"),
            GGML: Refused("whisper.cpp reads Whisper alone"),
            NEMO: Refused("NeMo's layout is for CTC models with a FastConformer"),
        },
        next_logits=_NextLogits(voxlm.model),
    )


def describe(voxlm: Architecture) -> Description:
    """What the runtime needs to know."""
    encode: Any = voxlm.encode
    collate: Any = voxlm.collate
    return Description(
        decoder="language_model",
        tasks=voxlm.tasks,
        languages=voxlm.languages,
        sample_rate=voxlm.sample_rate,
        vocabulary=voxlm.model.get_output_embeddings().weight.shape[0],
        parameters=voxlm.parameters,
        positions=voxlm.positions,
        log_mels=log_mel_settings(voxlm.processor.feature_extractor),
        context=ContextRule(context=collate.context, margin=collate.margin),
        spoken_prompt=SpokenPrompt(
            before=collate.before,
            after=encode.after,
            placeholder=collate.audio_id,
            stack=collate.stack,
            end=encode.end,
            padding=collate.pad_id,
            suppress=tuple(voxlm.model.generation_config.suppress_tokens or ()),
            aligner=voxlm.aligner is not None,
        ),
    )


def _onnx(voxlm: Architecture) -> Part | Refused:
    config = _text_config(voxlm)
    others = sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING})
    if others:
        return Refused(
            f"its language model ({config.model_type}) has layers of the kind {others[0]}, whose memory is no key and value"
        )
    return OnnxModel(parts=partial(_graphs, voxlm))


def _text_config(voxlm: Architecture) -> Any:
    return voxlm.model.config.text_config.get_text_config(decoder=True)


def _graphs(voxlm: Architecture) -> tuple[OnnxPart, ...]:
    """Log-mels, encoder, language model and, where there is one, aligner. The lengths that they are exported with are no
    others' bounds."""
    model: Any = copy.deepcopy(voxlm.model).cpu().float().eval()
    for part in (model.audio_encoder, model.language_model):
        part.set_attn_implementation("eager")
    parts = [
        log_mel_part(voxlm.processor.feature_extractor),
        _encoder(model),
        _language_model(model, _text_config(voxlm)),
    ]
    return (*parts, _aligner(model)) if model.aligner is not None else tuple(parts)


def _encoder(model: Any) -> OnnxPart:
    mels = model.config.audio_config.num_mel_bins
    return OnnxPart(
        name="encoder",
        module=EncoderGraph(model),
        inputs={"log_mels": torch.zeros(2, mels, FRAMES), "frames": torch.tensor([FRAMES - 10, FRAMES // 2])},
        outputs=("states", "sound"),
        dynamic={"log_mels": {0: "clips", 2: "log_mels"}, "frames": {0: "clips"}},
    )


def _language_model(model: Any, config: Any) -> OnnxPart:
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = [f"{kind}_{n}" for n in range(config.num_hidden_layers) for kind in ("key", "value")]
    past = {f"past_{name}": torch.zeros(3, heads, 5, width) for name in names}
    return OnnxPart(
        name="decoder",
        module=LanguageModelGraph(model),
        inputs={
            "ids": torch.zeros(3, 2, dtype=torch.long),
            "sound": torch.zeros(3, 2, config.hidden_size),
            "padding": torch.zeros(3, dtype=torch.long),
            "read": torch.ones(3, 4, dtype=torch.long),
            **past,
        },
        outputs=("logits", *(f"longer_{name}" for name in names), "hidden"),
        dynamic={
            "ids": {0: "rows", 1: "length"},
            "sound": {0: "rows", 1: "length"},
            "padding": {0: "rows"},
            "read": {0: "rows", 1: "read"},
            **{name: {0: "rows", 2: "past"} for name in past},
        },
    )


def _aligner(model: Any) -> OnnxPart:
    audio, text = model.config.aligner["frame_width"], model.config.aligner["word_width"]
    return OnnxPart(
        name="aligner",
        module=AlignerGraph(model.aligner),
        inputs={
            "states": torch.zeros(2, FRAMES // 2, audio),
            "frames": torch.tensor([FRAMES // 2, FRAMES // 4]),
            "words": torch.zeros(2, WORDS, text),
            "counts": torch.tensor([WORDS, 2]),
        },
        outputs=("starts", "ends"),
        dynamic={
            "states": {0: "clips", 1: "frames"},
            "frames": {0: "clips"},
            "words": {0: "clips", 1: "words"},
            "counts": {0: "clips"},
        },
    )


@dataclass(frozen=True)
class _NextLogits:
    """Logits of the original after a prompt and some ids, see `ExportParts.next_logits`."""

    model: Any

    @torch.no_grad()
    def __call__(self, batch: Any, row: int, place: int, ids: list[int]) -> np.ndarray:
        prompt = batch["input_ids"][row, : batch["prompt_lengths"][row]]
        frames = batch["frames"][row : row + 1]
        logits = self.model(
            input_ids=torch.cat((prompt, torch.tensor(ids, dtype=prompt.dtype, device=prompt.device)))[None],
            input_features=batch["input_features"][row : row + 1],
            frames=frames,
            longest=int(frames.max()),
        ).logits
        return logits[0, -1].float().cpu().numpy()
