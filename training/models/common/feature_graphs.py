"""Waveform to log-mels as torch modules that can be exported: the Fourier transform is a convolution.

ONNX has an operator for it, but onnxruntime's is some hundred times less exact than this one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.models.export_parts import LogMelSettings, OnnxPart


class PowerSpectrum(nn.Module):
    """Power of a waveform ``[samples]``: ``[n_fft / 2 + 1, samples / hop]``, frames centred on every ``hop``-th sample.

    window: float ``[n_fft]``. reflect: samples beyond the ends mirror those within; else they are silence.
    """

    def __init__(self, window: torch.Tensor, hop: int, *, reflect: bool) -> None:
        super().__init__()
        size = len(window)
        angles = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)).double() * (2 * math.pi / size)
        basis = torch.cat((angles.cos(), angles.sin())) * window.double()
        self.register_buffer("basis", basis.float()[:, None])
        self.size, self.hop, self.mode = size, hop, "reflect" if reflect else "constant"

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        half = self.size // 2
        padded = nn.functional.pad(waveform[None, None], (half, half), mode=self.mode)
        spectrum = nn.functional.conv1d(padded, self.basis, stride=self.hop)[0]  # type: ignore[arg-type]
        power = spectrum[: half + 1].square() + spectrum[half + 1 :].square()
        return power[:, : waveform.shape[0] // self.hop]


class WhisperLogMels(nn.Module):
    """Log-mels ``[mels, frames]`` of a clip ``[samples]``, as `WhisperFeatureExtractor` gives them (Radford et al., 2022)."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.power = PowerSpectrum(torch.hann_window(extractor.n_fft), extractor.hop_length, reflect=True)
        self.register_buffer(
            "filters", torch.tensor(extractor.mel_filters, dtype=torch.float32).T.contiguous()
        )

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        log = (self.filters @ self.power(waveform)).clamp(min=1e-10).log10()
        return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


def log_mel_settings(extractor: Any) -> LogMelSettings:
    """The sizes of Whisper's feature extractor."""
    return LogMelSettings(
        sampling_rate=extractor.sampling_rate,
        n_fft=extractor.n_fft,
        hop_length=extractor.hop_length,
        n_samples=extractor.n_samples,
        mels=extractor.feature_size,
    )


def log_mel_part(extractor: Any) -> OnnxPart:
    """The graph ``features`` of Whisper's feature extractor."""
    return OnnxPart(
        name="features",
        module=WhisperLogMels(extractor),
        inputs={"waveform": torch.zeros(extractor.sampling_rate)},
        outputs=("log_mels",),
        dynamic={"waveform": {0: "samples"}},
    )


class NormalisedWaveform(nn.Module):
    """A clip ``[samples]`` of mean 0 and variance 1, as `Wav2Vec2FeatureExtractor` gives it where ``normalise``."""

    def __init__(self, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if not self.normalise:
            return waveform * 1.0
        return (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
