"""Whisper as two graphs without control flow: the encoder with the keys and values of cross-attention, one decoder step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.models.common.decoder_graph import cross_caches, decoder_step
from training.models.common.whisper_encoder import encode_sliced


class EncoderGraph(nn.Module):
    """Log-mels ``[clips, mels, frames]``, any even number of frames, to the keys and values of each decoder layer's
    cross-attention, see `cross_caches`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        return cross_caches(model.decoder.layers, encode_sliced(model.encoder, log_mels))


class DecoderGraph(nn.Module):
    """One step: ids ``[rows, length]`` after a past of any length, 0 too, to the logits of the next id ``[rows, vocabulary]``.

    Caches are flat, see `decoder_step`. The logits are followed by the longer caches of self-attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, *caches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        decoder = model.decoder
        places = torch.arange(ids.shape[1], device=ids.device) + caches[0].shape[2]
        hidden = decoder.embed_tokens(ids) + decoder.embed_positions.weight[places]
        hidden, longer = decoder_step(decoder.layers, hidden, places, caches)
        return decoder.layer_norm(hidden[:, -1]) @ decoder.embed_tokens.weight.T, *longer
