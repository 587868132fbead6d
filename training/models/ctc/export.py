"""What a CTC model offers for export: its log-mels and its encoder as graphs."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import ParakeetFeatureExtractor
from transformers.models.parakeet.feature_extraction_parakeet import EPSILON, LOG_ZERO_GUARD_VALUE

from training.models.architecture import Architecture
from training.models.common.feature_graphs import (
    NormalisedWaveform,
    PowerSpectrum,
    log_mel_part,
    log_mel_settings,
)
from training.models.common.whisper_encoder import encode_sliced
from training.models.ctc.model import FastConformerCtc
from training.models.ctc.processor import (
    PEAK_DEVIATION,
    PEAK_MEAN,
    PEAK_RANGE,
    QUIETEST_PEAK,
    ClipNormExtractor,
    edge_silence,
)
from training.models.ctc.whisper import WhisperCtc
from training.models.export_parts import (
    CTRANSLATE2,
    GGML,
    NEMO,
    ONNX,
    ContextRule,
    CtcOutput,
    Description,
    ExportParts,
    NemoModel,
    OnnxModel,
    OnnxPart,
    Part,
    Refused,
)

STOCK = ("sampling_rate", "n_fft", "hop_length", "win_length", "preemphasis")
"""Settings of the log-mels that programs which read NeMo's layout do not ask for."""
SECONDS = 2.0
"""Length of the clip that the graphs are exported with; they take any other."""


def export_parts(ctc: Architecture) -> ExportParts:
    """The parts of a CTC model."""
    on_whisper = isinstance(ctc.model, WhisperCtc)
    formats: dict[str, Part | Refused] = {
        ONNX: OnnxModel(parts=partial(_graphs, ctc)),
        CTRANSLATE2: Refused(
            "CTranslate2 has Whisper's encoder with its decoder alone"
            if on_whisper
            else "CTranslate2 has no such encoder"
        ),
        GGML: Refused("whisper.cpp reads Whisper alone, with its decoder"),
        NEMO: _nemo(ctc),
    }
    return ExportParts(
        description=describe(ctc),
        save_text=ctc.processor.tokenizer.save_file,
        arrays={},
        formats=formats,
    )


def describe(ctc: Architecture) -> Description:
    """What the runtime needs to know."""
    frames, encode, collate = ctc.frames, ctc.encode, ctc.collate
    assert frames is not None
    of_whisper = _whisper_inputs(ctc) if isinstance(ctc.model, WhisperCtc) else {}
    return Description(
        decoder="ctc",
        tasks=ctc.tasks,
        languages=ctc.languages,
        sample_rate=ctc.sample_rate,
        vocabulary=len(frames.tokens),
        parameters=ctc.parameters,
        ctc=CtcOutput(
            tokens=tuple(frames.tokens),
            blank=frames.blank,
            seconds_per_frame=frames.seconds_per_frame,
            edge_seconds=frames.edge_seconds,
            fewest_samples=2 * encode.frames.samples(1),  # type: ignore[attr-defined]
            shortest=getattr(collate, "shortest", 1),
        ),
        **of_whisper,
    )


def _whisper_inputs(ctc: Architecture) -> dict[str, Any]:
    """Log-mels and context of a model on Whisper's encoder."""
    collate: Any = ctc.collate
    return {
        "log_mels": log_mel_settings(ctc.processor.feature_extractor),
        "context": ContextRule(context=collate.context, margin=collate.margin),
    }


def _graphs(ctc: Architecture) -> tuple[OnnxPart, ...]:
    if isinstance(ctc.model, WhisperCtc):
        return log_mel_part(ctc.processor.feature_extractor), _whisper_encoder(ctc)
    return _features(ctc), _encoder(ctc)


def _whisper_encoder(ctc: Architecture) -> OnnxPart:
    log_mels = torch.zeros(2, ctc.processor.feature_extractor.feature_size, 100)
    axes = {0: "batch", 2: "time"}
    return OnnxPart(
        name="encoder",
        module=WhisperLogProbs(ctc.model),
        inputs={"features": log_mels, "mask": torch.ones(2, 100, dtype=torch.long)},
        outputs=("log_probs", "lengths"),
        dynamic={"features": axes, "mask": {0: "batch", 1: "time"}},
    )


def _features(ctc: Architecture) -> OnnxPart:
    extractor = ctc.processor.feature_extractor
    edge = round(edge_silence(extractor) * extractor.sampling_rate)
    norm = extractor.feature_norm if isinstance(extractor, ClipNormExtractor) else "bands"
    module: nn.Module
    if extractor.model_input_names[0] == "input_features":
        module = ParakeetLogMels(extractor, norm, edge)
    else:
        module = NormalisedWaveform(bool(extractor.do_normalize))
    return OnnxPart(
        name="features",
        module=module,
        inputs={"waveform": _noise(ctc)},
        outputs=("features",),
        dynamic={"waveform": {0: "samples"}},
    )


def _encoder(ctc: Architecture) -> OnnxPart:
    features = _features(ctc).module(_noise(ctc))
    batch = torch.stack((features, features))
    return OnnxPart(
        name="encoder",
        module=LogProbs(ctc.model),
        inputs={"features": batch, "mask": torch.ones(batch.shape[:2], dtype=torch.long)},
        outputs=("log_probs", "lengths"),
        dynamic={"features": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}},
    )


def _nemo(ctc: Architecture) -> NemoModel | Refused:
    """NeMo's layout, for the log-mels that its programs compute themselves."""
    extractor, frames = ctc.processor.feature_extractor, ctc.frames
    assert frames is not None
    if not isinstance(ctc.model, FastConformerCtc):
        return Refused("NeMo's layout is for encoder: fastconformer")
    if isinstance(extractor, ClipNormExtractor):
        return Refused(
            f"programs that read NeMo's layout normalise each band; this model has feature_norm: {extractor.feature_norm}"
        )
    stock = ParakeetFeatureExtractor(feature_size=extractor.feature_size)
    other = [name for name in STOCK if getattr(extractor, name) != getattr(stock, name)]
    if other:
        return Refused(
            f"programs that read NeMo's layout compute log-mels with {other[0]} {getattr(stock, other[0])}; this model has "
            f"{getattr(extractor, other[0])}"
        )
    return NemoModel(
        parts=partial(_nemo_graphs, ctc),
        tokens=tuple(frames.tokens),
        blank=frames.blank,
        mels=extractor.feature_size,
        subsampling=round(frames.seconds_per_frame * extractor.sampling_rate / extractor.hop_length),
        third_parties={
            "onnx-asr": "yes",
            "sherpa-onnx": "not measured: it computes other log-mels",
        },
    )


def _nemo_graphs(ctc: Architecture) -> tuple[OnnxPart, ...]:
    features = _features(ctc)
    log_mels = features.module(_noise(ctc)).transpose(0, 1)
    batch = torch.stack((log_mels, log_mels))
    model = OnnxPart(
        name="model",
        module=NemoLogProbs(ctc.model),
        inputs={"audio_signal": batch, "length": torch.tensor([batch.shape[2], batch.shape[2] - 8])},
        outputs=("logprobs", "lengths"),
        dynamic={"audio_signal": {0: "batch", 2: "time"}, "length": {0: "batch"}},
    )
    return features, model


def _noise(ctc: Architecture) -> torch.Tensor:
    samples = round(SECONDS * ctc.sample_rate)
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


class LogProbs(nn.Module):
    """Features ``[batch, time, …]`` and their mask to log probabilities ``[batch, frames, vocabulary]`` and how many of
    the frames are real ``[batch]``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        # With torch's own attention Parakeet stops in the decomposition of the exporter ("Cannot view a tensor").
        self.model = copy.deepcopy(model).cpu().eval()
        if hasattr(self.model, "set_attn_implementation"):
            self.model.set_attn_implementation("eager")

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, lengths = self.model.states(features, mask)
        return self.model.to_logits(states).log_softmax(dim=-1), lengths


class WhisperLogProbs(LogProbs):
    """`LogProbs` for Whisper's log-mels ``[batch, mels, frames]``, any even number of frames."""

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, lengths = self.model.above(encode_sliced(self.model.encoder, features), mask)
        return self.model.to_logits(states).log_softmax(dim=-1), lengths


class NemoLogProbs(LogProbs):
    """`LogProbs` for log-mels ``[batch, mels, time]`` and how many of them are real ``[batch]``."""

    def forward(self, audio_signal: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        mask = torch.arange(audio_signal.shape[2], device=length.device) < length[:, None]
        return super().forward(audio_signal.transpose(1, 2), mask.long())


class ParakeetLogMels(nn.Module):
    """Log-mels ``[frames, mels]`` of a clip ``[samples]``, as `ParakeetFeatureExtractor` or `ClipNormExtractor` give them.

    extractor: its settings. norm: ``bands``, ``clip`` or ``peak``. edge: samples of silence on either side of the clip.
    """

    def __init__(self, extractor: Any, norm: str, edge: int) -> None:
        super().__init__()
        left = (extractor.n_fft - extractor.win_length) // 2
        window = nn.functional.pad(
            torch.hann_window(extractor.win_length, periodic=False),
            (left, extractor.n_fft - extractor.win_length - left),
        )
        self.power = PowerSpectrum(window, extractor.hop_length, reflect=False)
        self.register_buffer("filters", extractor.mel_filters.float())
        self.preemphasis, self.norm, self.edge = extractor.preemphasis, norm, edge

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        sound = nn.functional.pad(waveform, (self.edge, self.edge))
        if self.preemphasis is not None:
            sound = torch.cat((sound[:1], sound[1:] - self.preemphasis * sound[:-1]))
        log = torch.log(self.filters @ self.power(sound) + LOG_ZERO_GUARD_VALUE).transpose(0, 1)
        if self.norm == "peak":
            loudest = log.max().clamp(min=QUIETEST_PEAK)
            return ((log - loudest).clamp(min=-PEAK_RANGE) + PEAK_MEAN) / PEAK_DEVIATION
        if self.norm == "clip":
            return (log - log.mean()) / (log.std(unbiased=False) + EPSILON)
        centred = log - log.mean(dim=0, keepdim=True)
        deviation = (centred.square().sum(dim=0, keepdim=True) / (log.shape[0] - 1)).sqrt()
        return centred / (deviation + EPSILON)
