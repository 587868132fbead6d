"""Feature extractor and tokenizer of a CTC model, saved beside its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, BatchFeature, ParakeetFeatureExtractor

from training.models.ctc.model import TransformerCtcConfig
from training.models.ctc.tokenizer import CtcTokenizer

WINDOW_SECONDS = 0.025
SHIFT_SECONDS = 0.010
EPSILON = 1e-5
PEAK_RANGE = math.log(10**8)  # 80 dB
PEAK_MEAN, PEAK_DEVIATION = 7.0, 2.5
"""Mean distance of the log-mels of speech to their peak, and their standard deviation."""
QUIETEST_PEAK = -10.0
"""Log-mel power under which the loudest point of a clip is no speech, so that silence is not made loud. Speech at
-25 dB peaks near -1; this is 39 dB less."""


@dataclass
class CtcProcessor:
    """The processor that is saved beside the weights."""

    feature_extractor: Any
    tokenizer: CtcTokenizer

    def save_pretrained(self, folder: str | Path, **_: object) -> None:
        """``preprocessor_config.json`` and ``tokenizer.json``."""
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> CtcProcessor:
        """The counterpart of `save_pretrained`."""
        return cls(AutoFeatureExtractor.from_pretrained(folder), CtcTokenizer.from_pretrained(folder))


class ClipNormExtractor(ParakeetFeatureExtractor):
    """The log-mels of `ParakeetFeatureExtractor` under another norm, one for all bands of a clip.

    A mean for every band takes the colour out of a sound: of a clip of one word most of what tells it apart.

    feature_norm: ``clip``, less the mean and by the deviation of all bands together; ``peak``, measured from the
    loudest point down to 80 dB below it (after Radford et al., 2022) and scaled by the same numbers for every clip,
    so that silence around the speech changes nothing.
    edge_silence: seconds of silence put before and after each clip, so that its first and last word have as much
    around them as all others.
    """

    def __init__(
        self, *args: Any, feature_norm: str = "clip", edge_silence: float = 0.0, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.feature_norm = feature_norm
        self.edge_silence = edge_silence

    def __call__(  # type: ignore[override]
        self,
        raw_speech: np.ndarray,
        *,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """One clip, float ``[samples]``: ``input_features [1, frames, mels]`` and ``attention_mask [1, frames]``.

        Raises ``ValueError`` where sampling_rate is not the extractor's.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"sampling_rate: {sampling_rate}, but the model takes {self.sampling_rate}")
        edge = round(self.edge_silence * self.sampling_rate)
        samples = torch.nn.functional.pad(torch.as_tensor(raw_speech, dtype=torch.float32), (edge, edge))
        if self.preemphasis is not None:
            samples = torch.cat((samples[:1], samples[1:] - self.preemphasis * samples[:-1]))
        features = self._torch_extract_fbank_features(samples[None])[:, : len(samples) // self.hop_length]
        mask = torch.ones(features.shape[:2], dtype=torch.long)
        if features.numel():
            features = self._normalised(features)
        return BatchFeature({"input_features": features, "attention_mask": mask}, tensor_type=return_tensors)

    def _normalised(self, features: torch.Tensor) -> torch.Tensor:
        if self.feature_norm == "peak":
            loudest = features.max().clamp(min=QUIETEST_PEAK)
            return ((features - loudest).clamp(min=-PEAK_RANGE) + PEAK_MEAN) / PEAK_DEVIATION
        return (features - features.mean()) / (features.std(unbiased=False) + EPSILON)


def edge_silence(extractor: Any) -> float:
    """Seconds of silence that an extractor, ours or a stock one, puts on either side of a clip."""
    return extractor.edge_silence if isinstance(extractor, ClipNormExtractor) else 0.0


AutoFeatureExtractor.register(TransformerCtcConfig, ClipNormExtractor)


def log_mel_extractor(
    sample_rate: int,
    n_mels: int,
    n_fft: int | None = None,
    hop_length: int | None = None,
    feature_norm: str = "bands",
    edge_silence: float = 0.0,
) -> ParakeetFeatureExtractor:
    """Log-mels of 25 ms windows every 10 ms unless told otherwise.

    feature_norm: ``bands``, normalised per clip and band (NeMo's), or ``clip`` or ``peak``, see `ClipNormExtractor`;
    edge_silence goes with ``peak`` alone, which silence does not change.
    """
    window = min(round(WINDOW_SECONDS * sample_rate), n_fft or sample_rate)
    settings = {
        "feature_size": n_mels,
        "sampling_rate": sample_rate,
        "hop_length": hop_length or round(SHIFT_SECONDS * sample_rate),
        "n_fft": n_fft or 1 << (window - 1).bit_length(),
        "win_length": window,
    }
    if feature_norm == "bands":
        return ParakeetFeatureExtractor(**settings)
    return ClipNormExtractor(**settings, feature_norm=feature_norm, edge_silence=edge_silence)
