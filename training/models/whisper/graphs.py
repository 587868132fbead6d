"""Whisper as two graphs without control flow: the encoder with the keys and values of cross-attention, one decoder step."""

from __future__ import annotations

import torch
from torch import nn

from training.models.common.whisper_encoder import encode_sliced


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """``[batch, length, width]`` to ``[batch, heads, length, width / heads]``."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


class EncoderGraph(nn.Module):
    """Log-mels ``[batch, mels, frames]``, any even number of frames, to the keys and values of each decoder layer's
    cross-attention: ``[batch, heads, frames / 2, width / heads]``, keys and values in turn. They are computed once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states = encode_sliced(self.model.encoder, log_mels)  # type: ignore[arg-type]
        found: list[torch.Tensor] = []
        for layer in self.model.decoder.layers:  # type: ignore[union-attr]
            attention = layer.encoder_attn  # type: ignore[union-attr]
            for project in (attention.k_proj, attention.v_proj):
                found.append(split_heads(project(states), attention.num_heads))
        return tuple(found)


class DecoderGraph(nn.Module):
    """One step: ids ``[batch, length]`` after a past of any length, 0 too, to the logits of the next id ``[batch, vocabulary]``.

    Caches are flat: keys and values of each layer's self-attention ``[batch, heads, past, width / heads]``, then those of
    `EncoderGraph`. The logits are followed by the longer caches of self-attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, *caches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        decoder = self.model.decoder
        layers = decoder.layers  # type: ignore[union-attr]
        past, length = caches[0].shape[2], ids.shape[1]
        places = torch.arange(length, device=ids.device) + past
        hidden = decoder.embed_tokens(ids) + decoder.embed_positions.weight[places]  # type: ignore
        seen = torch.arange(past + length, device=ids.device)[None] <= places[:, None]
        bias = torch.where(seen, 0.0, -1e9)
        longer: list[torch.Tensor] = []
        for n, layer in enumerate(layers):  # type: ignore[arg-type]
            cross = caches[2 * (len(layers) + n) : 2 * (len(layers) + n) + 2]  # type: ignore[arg-type]
            hidden, key, value = _layer(layer, hidden, caches[2 * n : 2 * n + 2], cross, bias)
            longer += [key, value]
        last = decoder.layer_norm(hidden[:, -1])  # type: ignore
        return last @ decoder.embed_tokens.weight.T, *longer  # type: ignore


def _layer(
    layer: nn.Module,
    hidden: torch.Tensor,
    own: tuple[torch.Tensor, ...],
    cross: tuple[torch.Tensor, ...],
    bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    attention: nn.Module = layer.self_attn  # type: ignore[assignment]
    heads: int = attention.num_heads  # type: ignore[assignment]
    normed = layer.self_attn_layer_norm(hidden)  # type: ignore[operator]
    new = [split_heads(project(normed), heads) for project in (attention.k_proj, attention.v_proj)]  # type: ignore[operator]
    key, value = (torch.cat(pair, dim=2) for pair in zip(own, new, strict=True))
    hidden = hidden + _attend(attention, normed, key, value, bias)
    normed = layer.encoder_attn_layer_norm(hidden)  # type: ignore[operator]
    hidden = hidden + _attend(layer.encoder_attn, normed, cross[0], cross[1], None)  # type: ignore[arg-type]
    inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))  # type: ignore[operator]
    return hidden + layer.fc2(inner), key, value  # type: ignore[operator]


def _attend(
    attention: nn.Module,
    normed: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    queries = split_heads(attention.q_proj(normed) * attention.scaling, attention.num_heads)  # type: ignore
    scores = queries @ key.transpose(2, 3)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    return attention.out_proj((weights @ value).transpose(1, 2).flatten(2))  # type: ignore[operator]
