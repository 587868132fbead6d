"""Tiny CTC models, clips for them, and the sizes that they are made of."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from training.data.example import TRANSCRIBE, AudioRef, Example
from training.models.architecture import Architecture, BuildContext
from training.models.ctc.build import Ctc
from training.models.ctc.config import Options

TEXTS = ("Xin chào các bạn", "hôm nay chúng ta meeting nhé", "Deadline là thứ hai")
WAV2VEC2 = {
    "conv_dim": [16, 16],
    "conv_stride": [20, 8],
    "conv_kernel": [40, 16],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer",
    "mask_time_prob": 0.0,
}
WHISPER = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
CONVOLUTIONS = "transformer with convolutions"
ENCODERS = ("fastconformer", "transformer", "wav2vec2", CONVOLUTIONS, "whisper")


def context(texts: tuple[str, ...] = TEXTS, **more: Any) -> BuildContext:
    return BuildContext(texts=lambda: [(TRANSCRIBE, "vi", text) for text in texts], **more)


def options(encoder: str = "fastconformer", **changed: Any) -> Options:
    """Two layers of width 16; 10 or 20 ms frames, so that short clips hold long texts."""
    sizes = {"sizes": WAV2VEC2} if encoder == "wav2vec2" else {"subsampling": 2, "subsampling_channels": 8}
    if encoder == CONVOLUTIONS:
        encoder, sizes = "transformer", {**sizes, "conv_kernel": 5, "feature_norm": "clip"}
    if encoder == "whisper":
        named = {} if "pretrained" in changed else {"name": whisper()}
        return Options(**{"encoder": encoder, "context_margin_seconds": 0.2, **named, **changed})
    small = {"d_model": 16, "num_encoder_layers": 2, "num_heads": 2, "d_ff": 32, "n_mels": 16, "dropout": 0.0}
    return Options(**{"encoder": encoder, **small, **sizes, **changed})


@functools.cache
def whisper() -> str:
    """Folder of a stock Whisper of width 16 with random weights."""
    folder = tempfile.TemporaryDirectory(prefix="whisper-")
    atexit.register(folder.cleanup)
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in WHISPER.items()}
    config = WhisperConfig(
        **{**sizes, "d_model": 16, "num_mel_bins": 16, "vocab_size": 8},
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        init_std=0.2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder.name)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder.name)
    return folder.name


def tiny(encoder: str = "fastconformer", texts: tuple[str, ...] = TEXTS, **changed: Any) -> Architecture:
    return Ctc.build(options(encoder, **changed), context(texts))


def example(name: str = "u", seconds: float = 1.0, text: str | None = TEXTS[0]) -> Example:
    texts = {} if text is None else {TRANSCRIBE: text}
    return Example(id=name, audio=AudioRef(path=f"{name}.wav"), duration=seconds, texts=texts)


def noise(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def rows(architecture: Architecture, lengths: tuple[float, ...] = (0.8, 1.33, 1.0)) -> list[dict[str, Any]]:
    """Encoded clips of these lengths, with the texts in turn."""
    return [
        architecture.encode(example(f"u{i}", n, TEXTS[i % len(TEXTS)]), noise(n, i))
        for i, n in enumerate(lengths)
    ]


def saved(architecture: Architecture, folder: Path) -> Path:
    architecture.model.save_pretrained(folder)
    architecture.processor.save_pretrained(folder)
    return folder
