"""What Whisper offers for export: its description, its graphs, and why not where a format cannot hold it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.example import TRANSCRIBE
from training.models.architecture import Architecture
from training.models.common import SETTINGS
from training.models.common.decoder_graph import cross_outputs, decoder_part
from training.models.common.feature_graphs import log_mel_part, log_mel_settings
from training.models.export_parts import (
    CTRANSLATE2,
    GGML,
    NEMO,
    ONNX,
    ContextRule,
    CtcHead,
    Ctranslate2Model,
    Description,
    Detection,
    ExportParts,
    GgmlModel,
    MovedIds,
    OnnxModel,
    OnnxPart,
    Prompts,
    Refused,
)
from training.models.whisper.abilities import NO_SPEECH
from training.models.whisper.graphs import DecoderGraph, EncoderGraph
from training.models.whisper.reading import alignment_heads
from training.models.whisper.tokenizer import PREVIOUS, language_token, names_language

OPENAI_VOCABULARIES = (51_864, 51_865, 51_866)
"""Ids of Whisper's own vocabularies: English, multilingual, large-v3."""


def export_parts(whisper: Architecture, domains: dict[str, int] | None = None) -> ExportParts:
    """The parts of a Whisper.

    Args:
        whisper: the model.
        domains: token id of each domain, for a model with domain tokens.
    """
    description = describe(whisper, domains or {})
    filters = np.asarray(whisper.processor.feature_extractor.mel_filters, dtype=np.float32)
    return ExportParts(
        description=description,
        save_text=_TextFiles(whisper.processor),
        arrays={"mel_filters": filters, **_head_arrays(whisper.model)},
        formats={
            CTRANSLATE2: Ctranslate2Model(
                model=whisper.model,
                tokenizer=whisper.processor.tokenizer,
                moved=description.moved_ids,
                third_parties={"faster-whisper": _faster_whisper(whisper, domains)},
            ),
            ONNX: OnnxModel(parts=partial(_graphs, whisper)),
            GGML: _ggml(whisper, filters, domains),
            NEMO: Refused("NeMo's layout is for CTC models with a FastConformer"),
        },
        next_logits=_NextLogits(whisper.model),
    )


def describe(whisper: Architecture, domains: dict[str, int]) -> Description:
    """What the runtime needs to know."""
    config = whisper.model.config
    settings = getattr(config, SETTINGS)
    prompts = _prompts(whisper, domains)
    return Description(
        decoder="whisper",
        tasks=whisper.tasks,
        languages=whisper.languages,
        sample_rate=whisper.sample_rate,
        vocabulary=config.vocab_size,
        parameters=whisper.parameters,
        positions=whisper.positions,
        log_mels=log_mel_settings(whisper.processor.feature_extractor),
        context=ContextRule(context=whisper.collate.context, margin=whisper.collate.margin),  # type: ignore[attr-defined]
        prompts=prompts,
        moved_ids=MovedIds(
            ids=tuple(sorted(i for i in domains.values() if i > prompts.no_timestamps)),
            before=prompts.no_timestamps,
        ),
        alignment_heads=tuple(
            (layer, head) for layer, heads in alignment_heads(whisper.model).items() for head in heads
        ),
        head=CtcHead(characters=settings["ctc_characters"]) if settings["ctc_weight"] else None,
    )


def _head_arrays(model: Any) -> dict[str, np.ndarray]:
    """The CTC head, where there is one: ``ctc_head`` float32 ``[characters and blank, width + 1]``, the bias last."""
    if not model.ctc_weight:
        return {}
    weight, bias = (
        part.detach().float().cpu().numpy() for part in (model.ctc_head.weight, model.ctc_head.bias)
    )
    return {"ctc_head": np.concatenate((weight, bias[:, None]), axis=1)}


def _prompts(whisper: Architecture, domains: dict[str, int]) -> Prompts:
    tokenizer = whisper.processor.tokenizer
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    languages = {
        token[2:-2]: i
        for token, i in added.items()
        if token == language_token(token[2:-2]) and names_language(token)
    }
    return Prompts(
        start=whisper.collate.start_id,  # type: ignore[attr-defined]
        end=tokenizer.eos_token_id,
        no_timestamps=added["<|notimestamps|>"],
        suppress=tuple(whisper.model.generation_config.suppress_tokens or ()),
        suppress_first=tuple(whisper.model.generation_config.begin_suppress_tokens or ()),
        tasks={task: added[f"<|{task}|>"] for task in whisper.tasks},
        languages=languages,
        domains=domains,
        domain=whisper.domains.default if whisper.domains else None,
        domain_predictable=whisper.domains.predictable if whisper.domains else False,
        previous=added.get(PREVIOUS),
        no_speech=tuple(added[name] for name in NO_SPEECH if name in added),
        detection=_detection(whisper, added),
    )


def _detection(whisper: Architecture, added: Mapping[str, int]) -> Detection | None:
    if whisper.language_detection is None:
        return None
    prompt = (added[f"<|{TRANSCRIBE}|>"], added["<|notimestamps|>"])
    return Detection(languages=whisper.language_detection.languages, prompt=prompt)


def _graphs(whisper: Architecture) -> tuple[OnnxPart, ...]:
    """Log-mels, encoder and decoder. The lengths that they are exported with are no others' bounds."""
    model = copy.deepcopy(whisper.model).cpu().eval()
    model.model.encoder.set_attn_implementation("eager")
    config = model.config
    outputs = cross_outputs(config.decoder_layers)
    wanted: tuple[torch.Tensor, dict[int, str]] = (torch.tensor([0, 1]), {0: "number"})
    return (
        log_mel_part(whisper.processor.feature_extractor),
        OnnxPart(
            name="encoder",
            module=EncoderGraph(model),
            inputs={"log_mels": torch.zeros(2, config.num_mel_bins, 100)},
            outputs=(*outputs, "head") if model.ctc_weight else outputs,
            dynamic={"log_mels": {0: "clips", 2: "frames"}},
        ),
        decoder_part(
            DecoderGraph(model, alignment_heads(whisper.model)),
            config,
            50,
            {"wanted": wanted},
            outputs=("attention",),
        ),
    )


@dataclass(frozen=True)
class _TextFiles:
    """Writes tokenizer and feature extractor, in the files of transformers, which other programs look for too."""

    processor: Any

    def __call__(self, folder: Path) -> None:
        self.processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        self.processor.feature_extractor.save_pretrained(folder)


@dataclass(frozen=True)
class _NextLogits:
    """Logits of the original after a prompt and some ids, see `ExportParts.next_logits`."""

    model: Any

    @torch.no_grad()
    def __call__(self, batch: Any, row: int, place: int, ids: list[int]) -> np.ndarray:
        prompt = batch["decoder_input_ids"][row, place, : batch["prompt_length"]]
        states = self.model.encode(batch["input_features"][row : row + 1])
        inputs = torch.cat((prompt, torch.tensor(ids, dtype=prompt.dtype, device=prompt.device)))[None]
        hidden = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=states, use_cache=False)
        return self.model.proj_out(hidden.last_hidden_state[0, -1]).float().cpu().numpy()


def _has_openai_vocabulary(whisper: Architecture) -> bool:
    return whisper.model.config.vocab_size in OPENAI_VOCABULARIES


def _faster_whisper(whisper: Architecture, domains: dict[str, int] | None) -> str:
    if domains:
        return "no: it knows no domain tokens"
    if not _has_openai_vocabulary(whisper):
        return "no: with an own vocabulary it drops language and task from the prompt without a word"
    if whisper.collate.padding != "full":
        return "no: it pads every clip to 30 s, and this model was trained on trimmed contexts"
    return "yes; its texts may differ: it fills log-mels up with zeros, which are no silence"


def _ggml(whisper: Architecture, filters: np.ndarray, domains: dict[str, int] | None) -> GgmlModel | Refused:
    if domains or not _has_openai_vocabulary(whisper):
        return Refused(
            f"whisper.cpp derives its control ids from the size of OpenAI's vocabulary; this model has "
            f"{whisper.model.config.vocab_size:,} ids of its own"
        )
    return GgmlModel(
        model=whisper.model,
        tokenizer=whisper.processor.tokenizer,
        filters=filters,
        third_parties={"whisper.cpp": _whisper_cpp(whisper)},
    )


def _whisper_cpp(whisper: Architecture) -> str:
    if whisper.collate.padding == "full":
        return "yes"
    margin = whisper.collate.margin  # type: ignore[attr-defined]
    return (
        f"yes, with --audio-ctx: 50 × (seconds of the clip + {margin:g}), at most 1500; this model was trained on trimmed "
        "contexts and repeats itself on 30 s of them"
    )
