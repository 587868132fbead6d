"""Whisper's encoder for several architectures: on a context as short as the batch needs, and taken out of its folder."""

from __future__ import annotations

import torch
from huggingface_hub.errors import HFValidationError
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from training.models.common.weights import cannot_load, load_whole


def encode_audio(encoder: WhisperEncoder, input_features: torch.Tensor) -> torch.Tensor:
    """Encoder states ``[batch, frames / 2, width]`` of log-mels ``[batch, mels, frames]``, any number of frames.

    The stock encoder refuses anything but its full context. The positions are sinusoids, so the first n of
    them serve a shorter input; at full length this is the stock computation, which is then called itself.
    Slicing the context: FUTO's fine-tuned short-context models, 2023.
    """
    if input_features.shape[-1] == 2 * encoder.max_source_positions:
        return encoder(input_features).last_hidden_state
    return encode_sliced(encoder, input_features)


def encode_sliced(encoder: WhisperEncoder, input_features: torch.Tensor) -> torch.Tensor:
    """`encode_audio` on the first positions, without looking at the number of frames: an exported graph takes any."""
    hidden = nn.functional.gelu(encoder.conv1(input_features))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    hidden = nn.functional.dropout(hidden, p=encoder.dropout, training=encoder.training)
    for layer in encoder.layers:
        if encoder.training and encoder.layerdrop and torch.rand(()) < encoder.layerdrop:
            continue
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


def load_whisper_encoder(
    key: str, name: str, dtype: torch.dtype = torch.float32
) -> tuple[WhisperEncoder, WhisperFeatureExtractor]:
    """The encoder of a pretrained Whisper, and its feature extractor.

    Args:
        key: of the configuration, for messages.
        name: hub id or folder of a Whisper.
        dtype: of the weights.

    Raises:
        UserError: the folder is no whole Whisper; `NotInReach` where a hub id is not cached and not in reach.
    """
    try:
        extractor = WhisperFeatureExtractor.from_pretrained(name)
        whisper = load_whole(WhisperForConditionalGeneration, name, key, dtype=dtype, new=("proj_out.*",))
    except (OSError, HFValidationError) as error:  # the latter: a path that is not there
        raise cannot_load(key, name, error) from error
    return whisper.model.encoder, extractor
