"""A Whisper decoder that reads given texts, and its cross-attention meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from training.data.example import TRANSCRIBE
from training.models.abilities import ReadText
from training.models.batch import Batch
from training.models.common.plain_text import text_ids


@dataclass(frozen=True)
class WhisperReader:
    """`training.models.abilities.TextReader` of a Whisper. positions: of its decoder."""

    tokenizer: Any
    positions: int

    def ids(self, word: str) -> list[int]:
        return text_ids(self.tokenizer, f" {word}")

    def room(self, batch: Batch) -> int:
        return self.positions - int(batch["prompt_length"])

    @torch.no_grad()
    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[Sequence[int]], states: torch.Tensor | None = None
    ) -> list[ReadText]:
        if states is None:
            states = model.encode(batch["input_features"])
        prompts = self._prompts(batch)
        flat = [torch.tensor(ids, dtype=torch.long) for ids in texts]
        padded = pad_sequence(flat, batch_first=True, padding_value=self.tokenizer.eos_token_id).to(prompts)
        attention, hidden = read(model, alignment_heads(model), torch.cat([prompts, padded], dim=1), states)
        # The last token of the prompt attends to the frames of the first token of the text.
        attention, hidden = (part[..., prompts.shape[1] - 1 :, :] for part in (attention, hidden))
        return [
            ReadText(
                attention[i, :, : len(ids) + 1].float().cpu().numpy(),
                _log_probs(model, hidden[i], ids.to(prompts)),
                batch["input_features"][i].float().cpu().numpy(),
            )
            for i, ids in enumerate(flat)
        ]

    def _prompts(self, batch: Batch) -> torch.Tensor:
        """The decoder's prompts for transcripts, int64 ``[batch, length]``."""
        transcribe = self.tokenizer.convert_tokens_to_ids(f"<|{TRANSCRIBE}|>")
        prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
        task = (prompts == transcribe).any(dim=-1).int().argmax(dim=1)
        return prompts[torch.arange(len(prompts), device=prompts.device), task]


def _log_probs(model: Any, hidden: torch.Tensor, tokens: torch.Tensor) -> np.ndarray:
    """Log probability of each token, float ``[tokens]``; place i of ``hidden [length, width]`` predicts token i."""
    logits = model.proj_out(hidden[: len(tokens)]).float()
    return logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0].cpu().numpy()


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
