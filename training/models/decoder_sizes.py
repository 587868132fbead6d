"""Sizes of an autoregressive decoder, of which the memory plan counts the keys and values that attention keeps."""

from __future__ import annotations

from typing import Any, NamedTuple


class DecoderSizes(NamedTuple):
    """layers: of the decoder. width: of its states. kept: width of the keys, and of the values, that each layer keeps."""

    layers: int
    width: int
    kept: int


def sizes_of(config: Any) -> DecoderSizes:
    """The sizes that a configuration of transformers states, or that of its decoder where it has several parts."""
    decoder = config.get_text_config(decoder=True)
    layers = getattr(decoder, "decoder_layers", None) or decoder.num_hidden_layers
    width = getattr(decoder, "d_model", None) or decoder.hidden_size
    heads = getattr(decoder, "num_attention_heads", 1)
    # Grouped queries (Ainslie et al. 2023) share keys and values.
    return DecoderSizes(
        layers, width, width * (getattr(decoder, "num_key_value_heads", None) or heads) // heads
    )
