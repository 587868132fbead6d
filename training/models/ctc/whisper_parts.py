"""A CTC model on the encoder of a Whisper: from the Whisper itself, from the folder of a CTC run, or its shape alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor

from training.models.common.sizes import SIZES
from training.models.common.whisper_encoder import load_whisper_encoder
from training.models.ctc.parts import (
    Pretrained,
    Sizes,
    agree,
    any_config,
    pretrained,
    remember,
    same_sound,
)
from training.models.ctc.processor import CtcProcessor
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.ctc.whisper import WhisperCtc, WhisperCtcConfig
from training.models.e2e.parts import fetch


def on_whisper(
    sizes: Sizes, key: str, name: str, tokenizer: CtcTokenizer, named: Collection[str], *, meta: bool = False
) -> Pretrained:
    """The encoder of ``name`` with an output for ``tokenizer``.

    Args:
        sizes: ``head_layers`` and what a configuration may state beside them.
        key: of the configuration, which gives ``name``; for messages.
        name: hub id or folder of a Whisper, or folder of a CTC run on one, whose output is then kept as far as the
            vocabularies agree.
        tokenizer: of the new model.
        named: sizes that the configuration names; `UserError` where the checkpoint has others.
        meta: without weights, from the public sizes where the folder or the hub is not there.
    """
    if meta and name in SIZES:
        return _public(sizes, name, tokenizer)
    stock = fetch(key, name, lambda: any_config(name))
    if stock.model_type != WhisperConfig.model_type:
        return pretrained(sizes, name, tokenizer, named, meta=meta, key=key)
    encoder, extractor = load_whisper_encoder(key, name)
    agree(sizes, encoder.config, name, named)
    same_sound(sizes.sound, extractor, name, named)
    model = WhisperCtc(_config(sizes, encoder.config, extractor, tokenizer), encoder)
    note = f"{name}: its encoder is pretrained, the output layer ({len(tokenizer)} tokens) is new"
    return Pretrained(model, CtcProcessor(extractor, tokenizer), (note,))


def _config(sizes: Sizes, stock: WhisperConfig, extractor: Any, tokenizer: CtcTokenizer) -> WhisperCtcConfig:
    config = WhisperCtcConfig.of(
        stock,
        vocab_size=len(tokenizer),
        head_layers=sizes.head_layers,
        head_kernel=sizes.conv_kernel,
        head_dropout=sizes.dropout,
    )
    remember(config, sizes, sizes.conv_norm, extractor)
    return config


def _public(sizes: Sizes, name: str, tokenizer: CtcTokenizer) -> Pretrained:
    """The shape of a public Whisper's encoder, without weights."""
    public = SIZES[name]
    extractor = WhisperFeatureExtractor(**public["extractor"])
    with torch.device("meta"):
        model = WhisperCtc(_config(sizes, WhisperConfig(**public["config"]), extractor, tokenizer))
    return Pretrained(model, CtcProcessor(extractor, tokenizer), ())
