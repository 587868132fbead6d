"""Whisper as two graphs without control flow: the encoder with the keys and values of cross-attention, one decoder step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from training.models.common.decoder_graph import cross_caches, decoder_step
from training.models.common.whisper_encoder import encode_sliced


class EncoderGraph(nn.Module):
    """Log-mels ``[clips, mels, frames]``, any even number of frames, to the keys and values of each decoder layer's
    cross-attention, see `cross_caches`; behind them the logits of the CTC head ``[clips, frames / 2, characters]``, where there is
    one.

    model: `training.models.whisper.model.MultitaskWhisper`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        whisper: Any = self.model
        states = encode_sliced(whisper.model.encoder, log_mels)
        caches = cross_caches(whisper.model.decoder.layers, states)
        return (*caches, whisper.ctc_head(states)) if whisper.ctc_weight else caches


class DecoderGraph(nn.Module):
    """One step: ids ``[rows, length]`` after a past of any length, 0 too, to the logits that follow those ids whose places are
    ``wanted`` int64 ``[number]``: ``[rows, number, vocabulary]``.

    Caches are flat, see `decoder_step`. The logits are followed by the longer caches of self-attention, and by the attention of
    the ``heads`` (by layer) to the sound ``[clips, heads, rows of a clip × length, frames]``.
    """

    def __init__(self, model: nn.Module, heads: Mapping[int, Sequence[int]]) -> None:
        super().__init__()
        self.model, self.heads = model, heads

    def forward(
        self, ids: torch.Tensor, wanted: torch.Tensor, *caches: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        whisper: Any = self.model
        decoder = whisper.model.decoder
        places = torch.arange(ids.shape[1], device=ids.device) + caches[0].shape[2]
        hidden = decoder.embed_tokens(ids) + decoder.embed_positions.weight[places]
        hidden, longer, attention = decoder_step(decoder.layers, hidden, places, caches, heads=self.heads)
        last = decoder.layer_norm(hidden.index_select(1, wanted))
        return last @ decoder.embed_tokens.weight.T, *longer, torch.cat(attention, dim=1)
