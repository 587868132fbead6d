"""A tiny end-to-end model, its texts and its clips, for the tests of the architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from training.data.example import AudioRef, Example
from training.models.architecture import Architecture, BuildContext
from training.models.e2e.build import E2E
from training.models.e2e.config import Options

torch.set_num_threads(1)

TRANSCRIPTS = ("Xin chào các bạn", "kênh TikTok của em", "hôm nay meeting lúc ba giờ", "vâng cảm ơn chị")
TRANSLATIONS = ("Xin chào các bạn", "kênh video của em", "hôm nay cuộc họp lúc ba giờ", "vâng cảm ơn chị")
RATE = 16_000

ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 16, 16, 16],
    "conv_stride": [10, 8, 4, 2],
    "conv_kernel": [20, 16, 8, 3],
    "feat_extract_norm": "layer",
    "num_conv_pos_embeddings": 15,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
DECODER = {
    "d_model": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "dropout": 0.0,
    "scale_embedding": True,
}


def texts() -> Iterator[tuple[str, str | None, str]]:
    """The training texts, as a `BuildContext` gives them."""
    for transcript, translation in zip(TRANSCRIPTS, TRANSLATIONS, strict=True):
        yield "transcribe", "vi", transcript
        yield "translate", "vi", translation


def options(encoder: dict[str, Any] | None = None, **changes: Any) -> Options:
    """Options of the tiny model from scratch."""
    sizes = {"vocab_size": 90, "encoder": {**ENCODER, **(encoder or {})}, "decoder": DECODER}
    return Options(**{"sizes": sizes, "max_label_tokens": 64, **changes})


def tiny(encoder: dict[str, Any] | None = None, **changes: Any) -> Architecture:
    """The tiny model; ``encoder``: changed encoder sizes; the rest: changed options."""
    return E2E.build(options(encoder, **changes), BuildContext(texts=texts))


def example(i: int = 0, **changes: Any) -> Example:
    """Utterance number i with both texts."""
    both = {"transcribe": TRANSCRIPTS[i], "translate": TRANSLATIONS[i]}
    return Example(**{"id": f"u{i}", "audio": AudioRef(path="-"), "duration": 1.0, "texts": both, **changes})


def clip(i: int = 0, seconds: float = 1.0) -> np.ndarray:
    """A chord that tells the utterance: float32 ``[samples]``."""
    time = np.arange(int(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * frequency * time) for frequency in (200 + 170 * i, 900 + 410 * i))
    return (0.1 * wave).astype(np.float32)


def batch(architecture: Architecture, seconds: tuple[float, ...] = (1.5, 0.9)) -> dict[str, Any]:
    """Utterances 0, 1, … of these lengths, collated."""
    return architecture.collate([architecture.encode(example(i), clip(i, s)) for i, s in enumerate(seconds)])


def inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What of a batch goes into ``forward``."""
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
