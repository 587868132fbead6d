"""A VoxLM as graphs without control flow: sound to embeddings, one step of the language model, pointers of the aligner."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from training.models.common.decoder_graph import NEVER
from training.models.common.whisper_encoder import encode_sliced

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers whose keys and values can be kept in flat caches, by their names in transformers' configurations."""


class EncoderGraph(nn.Module):
    """Log-mels ``[clips, mels, log-mels]``, any even number of them, and the log-mels of each clip alone ``[clips]`` to encoder
    states ``[clips, frames, width]`` and embeddings of the sound ``[clips, groups, width of the language model]``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mels: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = encode_sliced(self.model.audio_encoder, log_mels)
        return states, self.model.project(states, frames)


class LanguageModelGraph(nn.Module):
    """One step of the language model: ids after a past of any length, 0 too, to logits of the next ids.

    The sound's embeddings stand in the place of its placeholder; caches are flat.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.placeholder = -1 if model.config.audio_token_id is None else model.config.audio_token_id
        self.embed = model.get_input_embeddings()
        self.decoder, self.head = model.language_model.get_decoder(), model.get_output_embeddings()
        self.config = model.config.text_config.get_text_config(decoder=True)

    def forward(
        self,
        ids: torch.Tensor,
        sound: torch.Tensor,
        padding: torch.Tensor,
        read: torch.Tensor,
        *caches: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits ``[rows, read, vocabulary]``, the longer caches, and last states ``[rows, length, width]``.

        Args:
            ids: int64 ``[rows, length]``.
            sound: ``[rows, length, width]``; what stands at a placeholder is its embedding, the rest does not matter.
            padding: ids of padding in front of each row, the past among them, int64 ``[rows]``.
            read: places among ``ids`` whose logits are wanted, int64 ``[rows, read]``.
            caches: keys and values in turn of each layer ``[rows, heads, past, width / heads]``.
        """
        placeholders = ids.eq(self.placeholder)[..., None]
        embeddings = self.embed(ids.masked_fill(placeholders[..., 0], 0))
        places = torch.arange(ids.shape[1], device=ids.device) + caches[0].shape[2]
        kept: Any = Cache(layers=[_layer(*pair) for pair in zip(caches[::2], caches[1::2], strict=True)])
        hidden = self.decoder(
            inputs_embeds=torch.where(placeholders, sound, embeddings),
            attention_mask=self._biases(places, padding, caches[0].shape[2] + ids.shape[1]),
            # As transformers' generation numbers them for this model: padding counts.
            position_ids=places[None],
            past_key_values=kept,
            use_cache=True,
        ).last_hidden_state
        chosen = hidden.gather(1, read[..., None].expand(-1, -1, hidden.shape[-1]))
        longer = [cache for layer in kept.layers for cache in (layer.keys, layer.values)]
        return self.head(chosen), *longer, hidden

    def _biases(self, places: torch.Tensor, padding: torch.Tensor, total: int) -> Any:
        """What is added to the scores ``[rows, 1, length, total]``; by the kind of layer where a model has kinds."""
        keys = torch.arange(total, device=places.device)
        seen = (keys <= places[:, None]) & (keys >= padding[:, None, None])
        found = {FULL: torch.where(seen, 0.0, NEVER)[:, None]}
        kinds = getattr(self.config, "layer_types", None)
        if kinds is None:
            return found[FULL]
        if SLIDING in kinds:
            near = seen & (keys > places[:, None] - self.config.sliding_window)
            found[SLIDING] = torch.where(near, 0.0, NEVER)[:, None]
        return found


def _layer(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    """A layer of transformers' cache that holds these keys and values."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


class AlignerGraph(nn.Module):
    """Encoder states, words and how many of either are real to log probabilities of the pointers ``[rows, words, frames]``,
    see `training.models.voxlm.aligner.WordAligner`."""

    def __init__(self, aligner: Any) -> None:
        super().__init__()
        self.aligner = aligner

    def forward(
        self, states: torch.Tensor, frames: torch.Tensor, words: torch.Tensor, counts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.aligner(states, frames, words, counts)
        return found.start_logits.log_softmax(dim=-1), found.end_logits.log_softmax(dim=-1)
