"""What a speech encoder with an mBART decoder offers for export: its description and its graphs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from training.models.architecture import Architecture
from training.models.common.decoder_graph import cross_outputs, decoder_part
from training.models.common.feature_graphs import NormalisedWaveform
from training.models.e2e.graphs import DecoderGraph, EncoderGraph
from training.models.e2e.tokenizer import TASK_TOKENS, language_codes, token_id
from training.models.export_parts import (
    CTRANSLATE2,
    GGML,
    NEMO,
    ONNX,
    Description,
    ExportParts,
    OnnxModel,
    OnnxPart,
    Refused,
    TaskPrompts,
    TokenizerFile,
    WaveformInput,
)


def export_parts(e2e: Architecture) -> ExportParts:
    """The parts of a speech encoder with an mBART decoder."""
    return ExportParts(
        description=describe(e2e),
        save_text=TokenizerFile(e2e.processor.tokenizer),
        arrays={},
        formats={
            ONNX: OnnxModel(parts=partial(_graphs, e2e)),
            CTRANSLATE2: Refused("CTranslate2 has no model of an encoder of waveforms with a text decoder"),
            GGML: Refused("whisper.cpp reads Whisper alone"),
            NEMO: Refused("NeMo's layout is for CTC models with a FastConformer"),
        },
        next_logits=_NextLogits(e2e.model),
    )


def describe(e2e: Architecture) -> Description:
    """What the runtime needs to know."""
    tokenizer, encode, collate = e2e.processor.tokenizer, e2e.encode, e2e.collate
    codes = language_codes(tokenizer)
    names = {**{token: token for token in codes.values()}, **codes}
    names |= dict(zip(e2e.languages, encode.languages, strict=True))  # type: ignore[attr-defined]
    return Description(
        decoder="encoder_decoder",
        tasks=e2e.tasks,
        languages=e2e.languages,
        sample_rate=e2e.sample_rate,
        vocabulary=e2e.model.config.decoder.vocab_size,
        parameters=e2e.parameters,
        positions=e2e.positions,
        task_prompts=TaskPrompts(
            start=collate.start_id,  # type: ignore[attr-defined]
            end=tokenizer.eos_token_id,
            tasks={task: token_id(tokenizer, TASK_TOKENS[task]) for task in e2e.tasks},
            languages={code: token_id(tokenizer, token) for code, token in names.items()},
        ),
        waveform=WaveformInput(
            fewest_samples=encode.frames.samples(1),  # type: ignore[attr-defined]
            shortest=collate.min_samples,  # type: ignore[attr-defined]
        ),
    )


def _graphs(e2e: Architecture) -> tuple[OnnxPart, ...]:
    """Normalised waveform, encoder and decoder. The lengths that they are exported with are no others' bounds."""
    model: Any = copy.deepcopy(e2e.model).cpu().eval()
    model.encoder.set_attn_implementation("eager")
    config = model.config.decoder
    rate = e2e.sample_rate
    mask = torch.ones(2, rate, dtype=torch.long)
    mask[1, rate // 2 :] = 0
    encoder = EncoderGraph(model)
    clips = {0: "clips", 1: "samples"}
    with torch.no_grad():
        *_, bias = encoder(torch.zeros(2, rate), mask)
    return (
        OnnxPart(
            name="features",
            module=NormalisedWaveform(bool(e2e.processor.feature_extractor.do_normalize)),
            inputs={"waveform": torch.zeros(rate)},
            outputs=("features",),
            dynamic={"waveform": {0: "samples"}},
        ),
        OnnxPart(
            name="encoder",
            module=encoder,
            inputs={"features": torch.zeros(2, rate), "mask": mask},
            outputs=(*cross_outputs(config.decoder_layers), "cross_bias"),
            dynamic={"features": clips, "mask": clips},
        ),
        decoder_part(
            DecoderGraph(model),
            config,
            bias.shape[-1],
            {"cross_bias": (bias, {0: "clips", 3: "frames"})},
        ),
    )


@dataclass(frozen=True)
class _NextLogits:
    """Logits of the original after a prompt and some ids, see `ExportParts.next_logits`."""

    model: Any

    @torch.no_grad()
    def __call__(self, batch: Any, row: int, place: int, ids: list[int]) -> np.ndarray:
        prompt = batch["decoder_input_ids"][row, place, : batch["prompt_length"]]
        states, mask = self.model.encode(
            batch["input_values"][row : row + 1], batch["attention_mask"][row : row + 1]
        )
        inputs = torch.cat((prompt, torch.tensor(ids, dtype=prompt.dtype, device=prompt.device)))[None]
        logits = self.model.decoder(
            input_ids=inputs,
            encoder_hidden_states=self.model.project(states),
            encoder_attention_mask=mask,
            use_cache=False,
        ).logits
        return logits[0, -1].float().cpu().numpy()
