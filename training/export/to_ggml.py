"""Whisper in the ggml format of whisper.cpp (its ``models/convert-*-to-ggml.py`` describe it)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

from training.models.export_parts import GgmlModel

FILE = "ggml-model.bin"
MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
NAMES = (
    ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
    ("model.decoder.embed_positions.weight", "decoder.positional_embedding"),
    ("model.decoder.embed_tokens.", "decoder.token_embedding."),
    ("model.encoder.layer_norm.", "encoder.ln_post."),
    ("model.decoder.layer_norm.", "decoder.ln."),
    (".layers.", ".blocks."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".self_attn.", ".attn."),
    (".encoder_attn.", ".cross_attn."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp.0."),
    (".fc2.", ".mlp.2."),
    ("model.", ""),
)
"""Names of transformers → those of OpenAI's weights, replaced in this order."""


def write_ggml(part: GgmlModel, folder: Path, precision: str, *, optimize: bool = True) -> None:
    """Write ``ggml-model.bin``: matrices in 16 bits, the rest in 32.

    Args:
        part: the model, its tokenizer and mel filters.
        folder: exists.
        precision: ``fp16``; whisper.cpp aborts its process on convolutions in 32 bits.
        optimize: means nothing here.
    """
    with (folder / FILE).open("wb") as file:
        _write_sizes(file, part)
        filters = np.ascontiguousarray(part.filters.T, dtype=np.float32)
        file.write(struct.pack("ii", *filters.shape))
        filters.tofile(file)
        _write_tokens(file, part)
        for name, values in _tensors(part):
            _write_tensor(file, name, values)


def _write_sizes(file: BinaryIO, part: GgmlModel) -> None:
    config = part.model.config
    sizes = (
        *(config.vocab_size, config.max_source_positions, config.d_model),
        *(config.encoder_attention_heads, config.encoder_layers, config.max_target_positions),
        *(config.d_model, config.decoder_attention_heads, config.decoder_layers, config.num_mel_bins),
    )
    file.write(struct.pack("i" * 12, MAGIC, *sizes, FLOAT16))


def _write_tokens(file: BinaryIO, part: GgmlModel) -> None:
    """The bytes of each text token; control tokens follow from their number."""
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    added = part.tokenizer.added_tokens_decoder
    pieces = sorted((i, piece) for piece, i in part.tokenizer.get_vocab().items() if i not in added)
    file.write(struct.pack("i", len(pieces)))
    for _, piece in pieces:
        spelled = bytes(letters[letter] for letter in piece)
        file.write(struct.pack("i", len(spelled)) + spelled)


def _tensors(part: GgmlModel) -> Iterator[tuple[str, np.ndarray]]:
    for name, values in part.model.state_dict().items():
        if name.startswith("model."):
            for theirs, openai in NAMES:
                name = name.replace(theirs, openai)
            yield name, values.detach().float().cpu().numpy()


def _write_tensor(file: BinaryIO, name: str, values: np.ndarray) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]
    small = values.ndim < 2 or name.endswith((".bias", "positional_embedding"))
    spelled = name.encode()
    file.write(struct.pack("iii", values.ndim, len(spelled), FLOAT32 if small else FLOAT16))
    file.write(struct.pack("i" * values.ndim, *reversed(values.shape)) + spelled)
    np.ascontiguousarray(values, dtype=np.float32 if small else np.float16).tofile(file)
