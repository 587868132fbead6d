"""Feature extractor and tokenizer of a CTC model, saved beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoFeatureExtractor, ParakeetFeatureExtractor

from training.nn.ctc_tokenizer import CtcTokenizer

WINDOW_SECONDS = 0.025
SHIFT_SECONDS = 0.010


@dataclass
class CtcProcessor:
    """What the trainer saves beside the weights."""

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


def log_mel_extractor(
    sample_rate: int, n_mels: int, n_fft: int | None = None, hop_length: int | None = None
) -> ParakeetFeatureExtractor:
    """Log-mels of 25 ms windows every 10 ms unless told otherwise, normalised per clip and band (NeMo's)."""
    window = min(round(WINDOW_SECONDS * sample_rate), n_fft or sample_rate)
    return ParakeetFeatureExtractor(
        feature_size=n_mels,
        sampling_rate=sample_rate,
        hop_length=hop_length or round(SHIFT_SECONDS * sample_rate),
        n_fft=n_fft or 1 << (window - 1).bit_length(),
        win_length=window,
    )
