"""The cross-attention of a Whisper decoder that reads a given text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def alignment_heads(model: Any) -> dict[int, list[int]]:
    """The heads that follow the sound, by decoder layer: those that the checkpoint names, else all of the last half."""
    named = getattr(model.generation_config, "alignment_heads", None)
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    pairs = named or [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    found: dict[int, list[int]] = defaultdict(list)
    for layer, head in pairs:
        found[layer].append(head)
    return dict(found)


def read(
    model: Any, heads: Mapping[int, Sequence[int]], inputs: torch.Tensor, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let the decoder read ``inputs``; nothing is generated.

    Args:
        model: a Whisper of transformers.
        heads: the heads to record, by decoder layer.
        inputs: token ids int64 ``[batch, length]``.
        states: encoder states ``[batch, frames, width]``.

    Returns:
        Attention ``[batch, heads, length, frames]`` and the decoder's states ``[batch, length, width]``. Place i of both
        comes before token i + 1 is known, and predicts it.
    """
    with _recorded_attention(model, heads) as layers:
        hidden = model.model.decoder(
            input_ids=inputs, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state
    return torch.cat([layers[layer] for layer in sorted(layers)], dim=1), hidden


@contextmanager
def _recorded_attention(model: Any, heads: Mapping[int, Sequence[int]]) -> Iterator[dict[int, torch.Tensor]]:
    """Cross-attention ``[batch, chosen heads, length, frames]`` of the decoder's pass in the block, by layer.

    Hooks store the chosen heads only: the attention of all heads of a large model takes gigabytes.
    """
    kept: dict[int, torch.Tensor] = {}
    before = model.config._attn_implementation

    def keeper(layer: int) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            kept[layer] = output[1][:, list(heads[layer])]

        return keep

    model.set_attn_implementation("eager")  # the others give no weights
    hooks = [
        model.model.decoder.layers[layer].encoder_attn.register_forward_hook(keeper(layer)) for layer in heads
    ]
    try:
        yield kept
    finally:
        model.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()
