"""A tiny Whisper from scratch and utterances for it, made by code."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.data.example import AudioRef, Example
from training.models.architecture import Architecture, BuildContext
from training.models.lookup import load

TRANSCRIPT = "Xin chào các bạn hôm nay chúng ta meeting nhé"
TRANSLATION = "Xin chào các bạn hôm nay chúng ta họp nhé"
TEXTS = [("transcribe", "vi", TRANSCRIPT), ("translate", "vi", TRANSLATION)] * 4
SIZES = {
    "vocab_size": 400,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


def tiny(**options: Any) -> Architecture:
    """A Whisper of some 40,000 weights."""
    module = load("whisper")
    sizes = {**SIZES, **options.pop("sizes", {})}
    chosen = module.Options(**{"sizes": sizes, "max_label_tokens": 64, **options})
    return module.build(chosen, BuildContext(texts=lambda: iter(TEXTS)))


def example(name: str, seconds: float, **texts: str) -> Example:
    """An utterance without a file: its sound is `noise`."""
    return Example(id=name, audio=AudioRef(path=f"{name}.wav"), duration=seconds, texts=texts, language="vi")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Float32 mono at 16 kHz."""
    return np.random.default_rng(seed).standard_normal(round(seconds * 16000)).astype(np.float32) * 0.1


def features(architecture: Architecture, lengths: tuple[float, ...] = (1.0, 2.5)) -> list[dict[str, Any]]:
    """Encoded utterances of the given lengths in seconds, with both texts."""
    return [
        architecture.encode(example(f"u{i}", n, transcribe=TRANSCRIPT, translate=TRANSLATION), noise(n, i))
        for i, n in enumerate(lengths)
    ]
