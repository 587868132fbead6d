"""One step of a Transformer decoder without control flow, for the graphs of an export: Whisper's and mBART's layers.

Several decoder rows may belong to one clip (its tasks, its beams): keys and values of cross-attention are there once for each
clip, as in `training.models.common.cross_attention`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.models.export_parts import OnnxPart

NEVER = -1e9
"""Added to the scores of what must not be attended to."""


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """``[rows, length, width]`` to ``[rows, heads, length, width / heads]``."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def cross_caches(layers: Sequence[Any], states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys and values, in turn, of each layer's cross-attention, ``[clips, heads, frames, width / heads]``, of encoder states
    ``[clips, frames, width]``. They are computed once for a clip."""
    found: list[torch.Tensor] = []
    for layer in layers:
        attention = layer.encoder_attn
        found += [split_heads(p(states), attention.num_heads) for p in (attention.k_proj, attention.v_proj)]
    return tuple(found)


def decoder_step(
    layers: Sequence[Any],
    hidden: torch.Tensor,
    places: torch.Tensor,
    caches: Sequence[torch.Tensor],
    cross_bias: torch.Tensor | None = None,
    heads: Mapping[int, Sequence[int]] | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Pass the embeddings of new ids through the layers.

    Args:
        layers: of the decoder; names of modules are those of transformers' Whisper and mBART.
        hidden: ``[rows, length, width]``.
        places: positions of the new ids, int64 ``[length]``.
        caches: keys and values of each layer's self-attention ``[rows, heads, past, width / heads]``, then those of
            `cross_caches`; ``rows`` is a multiple of the clips, the rows of a clip stand together.
        cross_bias: added to the scores of cross-attention, ``[clips, 1, 1, frames]``.
        heads: of the cross-attention that are told of, by layer.

    Returns:
        States ``[rows, length, width]``, the longer caches of self-attention, and the attention of ``heads``, for each of
        these layers ``[clips, heads, rows of a clip × length, frames]``.
    """
    seen = torch.arange(caches[0].shape[2] + len(places), device=places.device)[None] <= places[:, None]
    bias = torch.where(seen, 0.0, NEVER)
    longer: list[torch.Tensor] = []
    told: list[torch.Tensor] = []
    for n, layer in enumerate(layers):
        own = caches[2 * n : 2 * n + 2]
        key, value = caches[2 * (len(layers) + n) : 2 * (len(layers) + n) + 2]
        normed = layer.self_attn_layer_norm(hidden)
        attention = layer.self_attn
        new = [split_heads(p(normed), attention.num_heads) for p in (attention.k_proj, attention.v_proj)]
        kept = [torch.cat(pair, dim=2) for pair in zip(own, new, strict=True)]
        hidden = hidden + _attend(attention, normed, kept[0], kept[1], bias)[0]
        normed = layer.encoder_attn_layer_norm(hidden)
        gathered, weights = _attend_to_clips(layer.encoder_attn, normed, key, value, cross_bias)
        hidden = hidden + gathered
        if heads and n in heads:
            told.append(weights[:, list(heads[n])])
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
        longer += kept
    return hidden, longer, told


def _attend_to_clips(
    attention: Any, normed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries know nothing of one another: those of all rows of a clip are taken as one long sequence."""
    rows = normed.unflatten(0, (key.shape[0], -1)).flatten(1, 2)
    gathered, weights = _attend(attention, rows, key, value, bias)
    return gathered.view(normed.shape), weights


def _attend(
    attention: Any, normed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    queries = split_heads(attention.q_proj(normed) * attention.scaling, attention.num_heads)
    scores = queries @ key.transpose(2, 3)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    return attention.out_proj((weights @ value).transpose(1, 2).flatten(2)), weights


def cache_names(layers: int) -> list[str]:
    """What the flat caches of a decoder of so many layers are called: keys and values in turn."""
    return [f"{kind}_{n}" for n in range(layers) for kind in ("key", "value")]


def cross_outputs(layers: int) -> tuple[str, ...]:
    """Names of the outputs of an encoder that ends in `cross_caches`."""
    return tuple(f"cross_{name}" for name in cache_names(layers))


def decoder_part(
    module: Any,
    config: Any,
    frames: int,
    more: Mapping[str, tuple[torch.Tensor, Mapping[int, str]]],
    outputs: Sequence[str] = (),
) -> OnnxPart:
    """The graph ``decoder`` of a module whose forward takes ids, further inputs and flat caches.

    Args:
        module: returns the next logits and the longer caches.
        config: of the decoder, with the names that Whisper and mBART share.
        frames: length of the cross-attention in the example of the export; in use it may be any.
        more: inputs between ids and caches: name → example and the names of its dynamic axes.
        outputs: further ones, behind the caches.
    """
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    width = config.d_model // heads
    # Two clips with two rows each: equal lengths would be taken for lengths that are always equal. Each input is a
    # tensor of its own: the exporter takes inputs that are one object for one input.
    past = {f"past_{name}": torch.zeros(4, heads, 3, width) for name in cache_names(layers)}
    cross = {name: torch.zeros(2, heads, frames, width) for name in cross_outputs(layers)}
    return OnnxPart(
        name="decoder",
        module=module,
        inputs={
            "ids": torch.zeros(4, 2, dtype=torch.long),
            **{name: example for name, (example, _) in more.items()},
            **past,
            **cross,
        },
        outputs=("logits", *(f"longer_{name}" for name in cache_names(layers)), *outputs),
        dynamic={
            "ids": {0: "rows", 1: "length"},
            **{name: axes for name, (_, axes) in more.items()},
            **{name: {0: "rows", 2: "past"} for name in past},
            **{name: {0: "clips", 2: "frames"} for name in cross},
        },
    )
