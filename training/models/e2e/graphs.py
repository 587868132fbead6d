"""Speech encoder and mBART decoder as two graphs without control flow, see `training.models.whisper.graphs`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.models.common.decoder_graph import NEVER, cross_caches, decoder_step


class EncoderGraph(nn.Module):
    """Waveforms ``[clips, samples]`` and their mask to the keys and values of each decoder layer's cross-attention, and the
    bias ``[clips, 1, 1, frames]`` that keeps padding out of it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        seen = mask if model.mask_encoder else None
        states = model.encoder(input_values, attention_mask=seen).last_hidden_state
        lengths = model.encoder._get_feat_extract_output_lengths(mask.sum(dim=-1))
        real = torch.arange(states.shape[1], device=mask.device) < lengths[:, None]
        layers = model.decoder.base_model.decoder.layers
        return *cross_caches(layers, model.project(states)), torch.where(real, 0.0, NEVER)[:, None, None]


class DecoderGraph(nn.Module):
    """One step: ids ``[rows, length]`` after a past of any length, 0 too, to the logits of the next id ``[rows, vocabulary]``.

    Then come the bias of `EncoderGraph` and flat caches, see `training.models.common.decoder_graph.decoder_step`. The logits
    are followed by the longer caches of self-attention.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.decoder.base_model.decoder, model.decoder.get_output_embeddings()

    def forward(
        self, ids: torch.Tensor, cross_bias: torch.Tensor, *caches: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        decoder: Any = self.decoder
        places = torch.arange(ids.shape[1], device=ids.device) + caches[0].shape[2]
        positions = decoder.embed_positions.weight[places + decoder.embed_positions.offset]
        hidden = decoder.layernorm_embedding(decoder.embed_tokens(ids) + positions)
        hidden, longer, _ = decoder_step(decoder.layers, hidden, places, caches, cross_bias)
        return self.head(decoder.layer_norm(hidden[:, -1])), *longer
