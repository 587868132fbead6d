"""Attention of short clips in bfloat16 on a CPU, by matrix products."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "polyvox_products"
STOCK = "sdpa"
MOST_SCORES = 8 * 2**20
"""Scores that are held at once (16 MiB in bfloat16, for each layer until its backward pass). Above, torch's kernel, which
holds none of them, is as fast: see the measurement in docs/internal/log.md."""


def products_in_bfloat16(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **stock: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a transformers model that trains in bfloat16 on a CPU.

    torch's fused kernel computes its backward pass on a CPU in bfloat16 slower than in float32, while processors with
    AVX512-BF16 or AMX multiply bfloat16 matrices two to four times as fast. So the scores of short clips are made, kept
    and multiplied as matrices; longer clips, other types and plain inference go to the stock function.

    Args:
        module: the attention; ``is_causal`` of it counts where none is given.
        query: ``[batch, heads, queries, width]``.
        key, value: ``[batch, heads, keys, width]``.
        attention_mask: boolean (false: not attended) or added to the scores, ``[batch, 1 or heads, queries, keys]``.
        dropout: of the attention weights.
        scaling: factor of the scores; None: 1 / √width.
        is_causal: whether a query sees the keys up to its own position only; counts without a mask.
        stock: further arguments of the stock function.

    Returns:
        ``[batch, queries, heads, width]``, and None in place of the weights.
    """
    if not _suits(query, key, stock):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **stock
        )
    factor = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    scores = torch.matmul(query if factor == 1 else query * factor, key.transpose(-1, -2))
    mask = _mask(module, scores, attention_mask, is_causal)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = torch.nn.functional.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


def _suits(query: torch.Tensor, key: torch.Tensor, stock: dict[str, Any]) -> bool:
    """Whether the products are faster and give the same: bfloat16 on a CPU, a backward pass, as many heads, short."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and torch.is_grad_enabled()
        and query.shape[1] == key.shape[1]
        and not any(stock.get(name) is not None for name in ("position_bias", "cache", "softcap"))
        and query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] <= MOST_SCORES
    )


def _mask(
    module: torch.nn.Module, scores: torch.Tensor, given: torch.Tensor | None, is_causal: bool | None
) -> torch.Tensor | None:
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    queries, keys = scores.shape[-2:]
    if given is not None or not causal or queries == 1:
        return given
    return torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril()


def use_products(model: Any) -> bool:
    """Give ``model`` this attention where it has torch's; whether it has it now. Nothing of it is saved with a model."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != STOCK:
        return False
    AttentionInterface.register(NAME, products_in_bfloat16)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return getattr(config, "_attn_implementation", None) == NAME
