"""Encoders with a CTC output: FastConformer, plain Transformer, wav2vec2. One loss, one way to read the frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    ParakeetEncoderConfig,
    ParakeetForCTC,
    PreTrainedConfig,
    PreTrainedModel,
    Wav2Vec2ForCTC,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderSubsamplingConv2D
from transformers.utils import ModelOutput

from training.models.common import SETTINGS
from training.models.common.ctc import ctc_loss
from training.models.common.targets import IGNORED

BLANK_ID = 0


@dataclass
class CtcOutput(ModelOutput):
    """loss: scalar; logits ``[batch, frames, vocabulary]``; lengths ``[batch]`` real frames;
    encoder_last_hidden_state ``[batch, frames, width]``."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    encoder_last_hidden_state: torch.Tensor | None = None


class CtcForward:
    """Base of the three encoders: the loss and the forward pass. Each encoder implements `states` and `to_logits`.

    label_smoothing: set by the trainer; that share of the loss is the divergence of the frames' outputs from
    equal probabilities (Kim et al., 2017).
    middle_weight: set by the architecture; that share of the loss of training is the loss of the states half way up,
    read by the same output layer (intermediate CTC, Lee and Watanabe, 2021). Evaluation has none of it.
    """

    accepts_loss_kwargs = True  # tells transformers' Trainer that the loss is divided by num_items_in_batch
    label_smoothing = 0.0
    middle_weight = 0.0

    def states(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states ``[batch, frames, width]`` and how many of the frames are real ``[batch]``."""
        raise NotImplementedError

    def lengths(self, attention_mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        """Real frames of each row ``[batch]``."""
        raise NotImplementedError

    def to_logits(self, states: torch.Tensor) -> torch.Tensor:
        """``[batch, frames, vocabulary]``."""
        raise NotImplementedError

    def normed(self, states: torch.Tensor) -> torch.Tensor:
        """States of a layer within the encoder, normalised as `to_logits` expects them."""
        return states

    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        input_values: torch.Tensor | None = None,
    ) -> CtcOutput:
        """The sum of -log p(labels) over the batch, divided by ``num_items_in_batch`` or by its own labels.

        input_features ``[batch, frames, mels]`` or input_values ``[batch, samples]``; attention_mask: 1 where
        there is sound; labels ``[batch, length]`` filled up with `IGNORED`.
        """
        sound = input_features if input_features is not None else input_values
        assert sound is not None
        with self._half_way(labels is not None) as middle:
            states, lengths = self.states(sound, attention_mask)
        logits = self.to_logits(states)
        loss = None
        if labels is not None:
            loss = self._loss(logits, lengths, labels, num_items_in_batch)
            for half_way in middle:
                middle_logits = self.to_logits(self.normed(half_way))
                middle_loss = self._loss(middle_logits, lengths, labels, num_items_in_batch)
                loss = torch.lerp(loss, middle_loss, self.middle_weight)
        return CtcOutput(loss=loss, logits=logits, lengths=lengths, encoder_last_hidden_state=states)

    @contextmanager
    def _half_way(self, learning: bool) -> Iterator[list[torch.Tensor]]:
        """A list that holds the states of the lower half of the encoder once the encoder was called.

        They are those of the last layer of that half which LayerDrop did not skip, ``[batch, frames, width]``. The list
        is empty where all were skipped, outside training, and without `middle_weight`.
        """
        if not (learning and self.middle_weight and self.training):  # type: ignore[attr-defined]
            yield []
            return
        layers = self.encoder.layers  # type: ignore[attr-defined]
        found: list[torch.Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            found[:] = [output]

        hooks = [layer.register_forward_hook(keep) for layer in layers[: max(1, len(layers) // 2)]]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _loss(
        self,
        logits: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        items: torch.Tensor | int | None,
    ) -> torch.Tensor:
        loss = ctc_loss(logits, lengths, labels, blank=BLANK_ID)
        if self.label_smoothing:
            labelled = (labels != IGNORED).any(dim=-1)
            frames = torch.arange(logits.shape[1], device=logits.device) < (lengths * labelled)[:, None]
            spread = -logits.float().log_softmax(dim=-1).mean(dim=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * (spread * frames).sum()
        return loss / (items if items is not None else (labels != IGNORED).sum().clamp(min=1))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of ``[batch, channels, frames]``."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class FastConformerCtc(CtcForward, ParakeetForCTC):
    """Stock `ParakeetForCTC` (Rekesh et al., 2023): names, weights and configuration are the stock class's.

    With ``conv_norm: layer`` in the settings the convolution modules have a layer norm in the place of the batch
    norm (NeMo's ``conv_norm_type``): the output of a clip then depends on that clip only, with any number
    of processes and in a batch of any size.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if (getattr(config, SETTINGS, None) or {}).get("conv_norm") == "layer":
            for layer in self.encoder.layers:
                layer.conv.norm = ChannelNorm(config.encoder_config.hidden_size)

    def states(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.encoder(input_features=sound, attention_mask=attention_mask).last_hidden_state
        return states, self.lengths(attention_mask, states)

    def lengths(self, attention_mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        if attention_mask is None:
            return states.new_full(states.shape[:1], states.shape[1], dtype=torch.long)
        return self._get_subsampling_output_length(attention_mask.sum(-1)).long()

    def to_logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.ctc_head(states)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the folder in the format of the stock class, so that stock transformers loads it."""
        return _save_as(self, ParakeetForCTC, save_directory, kwargs)


class Wav2Vec2Ctc(CtcForward, Wav2Vec2ForCTC):
    """Stock `Wav2Vec2ForCTC` (Baevski et al., 2020). The encoder sees the mask where its checkpoint was trained
    with one (``mask_encoder`` in the settings)."""

    def states(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        settings = getattr(self.config, SETTINGS, None) or {}
        mask = attention_mask if settings.get("mask_encoder", True) else None
        states = self.wav2vec2(sound, attention_mask=mask).last_hidden_state
        return states, self.lengths(attention_mask, states)

    def lengths(self, attention_mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        if attention_mask is None:
            return states.new_full(states.shape[:1], states.shape[1], dtype=torch.long)
        return self._get_feat_extract_output_lengths(attention_mask.sum(-1)).long()  # type: ignore[arg-type]

    def to_logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.dropout(states))

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the folder in the format of the stock class, so that stock transformers loads it."""
        return _save_as(self, Wav2Vec2ForCTC, save_directory, kwargs)


class TransformerCtcConfig(PreTrainedConfig):
    """Sizes of `TransformerCtc`, by the names of the Transformer paper."""

    model_type = "polyvox_transformer_ctc"

    vocab_size: int = 32
    d_model: int = 256
    num_encoder_layers: int = 6
    num_heads: int = 4
    d_ff: int = 1024
    dropout: float = 0.1
    num_mel_bins: int = 80
    subsampling_factor: int = 4
    subsampling_conv_channels: int = 64
    conv_kernel: int = 0
    pad_token_id: int | None = BLANK_ID


class ConvolutionModule(nn.Module):
    """Pointwise with a gate, depthwise, pointwise (Gulati et al., 2020), with layer norms instead of batch norm."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pointwise1 = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm_depthwise = nn.LayerNorm(width)
        self.pointwise2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """The residual of states ``[batch, frames, width]``; frames of padding count as silence."""
        inner = nn.functional.glu(self.pointwise1(self.norm(states)))
        if padding is not None:
            inner = inner.masked_fill(padding[..., None], 0.0)
        inner = self.norm_depthwise(self.depthwise(inner.transpose(1, 2)).transpose(1, 2))
        return self.dropout(self.pointwise2(nn.functional.silu(inner)))


class TransformerBlock(GradientCheckpointingLayer):
    """Self-attention and feed-forward, layer norms in front (Xiong et al., 2020); with ``conv_kernel`` a
    convolution module before them."""

    def __init__(self, config: TransformerCtcConfig) -> None:
        super().__init__()
        self.conv = (
            ConvolutionModule(config.d_model, config.conv_kernel, config.dropout)
            if config.conv_kernel
            else None
        )
        self.norm_self_att = nn.LayerNorm(config.d_model)
        self.self_attn = nn.MultiheadAttention(
            config.d_model, config.num_heads, dropout=config.dropout, batch_first=True
        )
        self.norm_feed_forward = nn.LayerNorm(config.d_model)
        self.linear1 = nn.Linear(config.d_model, config.d_ff)
        self.linear2 = nn.Linear(config.d_ff, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """Map states ``[batch, frames, width]`` to states of that shape. padding: bool ``[batch, frames]``, True on padding."""
        if self.conv is not None:
            states = states + self.conv(states, padding)
        normed = self.norm_self_att(states)
        attended, _ = self.self_attn(normed, normed, normed, key_padding_mask=padding, need_weights=False)
        states = states + self.dropout(attended)
        inner = self.dropout(nn.functional.gelu(self.linear1(self.norm_feed_forward(states))))
        return states + self.dropout(self.linear2(inner))


class TransformerEncoder(nn.Module):
    """Convolutions that shorten the log-mels, sinusoidal positions, pre-norm Transformer layers.

    With ``conv_kernel`` there are no sinusoids: the convolutions encode relative positions, so that clips may be
    longer than those of training.
    """

    def __init__(self, config: TransformerCtcConfig) -> None:
        super().__init__()
        self.sinusoids = not config.conv_kernel
        self.subsampling = ParakeetEncoderSubsamplingConv2D(
            ParakeetEncoderConfig(
                hidden_size=config.d_model,
                num_attention_heads=config.num_heads,
                num_mel_bins=config.num_mel_bins,
                subsampling_factor=config.subsampling_factor,
                subsampling_conv_channels=config.subsampling_conv_channels,
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_encoder_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, sound: torch.Tensor, mask: torch.Tensor | None, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """Log-mels ``[batch, frames, mels]`` to states ``[batch, frames / factor, width]``."""
        states = self.subsampling(sound, mask)
        padding = None
        if lengths is not None:
            padding = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
        if self.sinusoids:
            states = states + sinusoids(states.shape[1], states.shape[2]).to(states)
        states = self.dropout(states)
        for layer in self.layers:
            states = layer(states, padding)
        return self.norm(states)


class TransformerCtc(CtcForward, PreTrainedModel):
    """A plain Transformer encoder with a CTC output."""

    config_class = TransformerCtcConfig
    base_model_prefix = "encoder"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True

    def __init__(self, config: TransformerCtcConfig) -> None:
        super().__init__(config)
        self.encoder = TransformerEncoder(config)
        self.ctc_head = nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initial weights, each module's."""

    def states(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = None if attention_mask is None else self._shortened(attention_mask.sum(-1))
        states = self.encoder(sound, attention_mask, lengths)
        return states, self.lengths(attention_mask, states)

    def lengths(self, attention_mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        if attention_mask is None:
            return states.new_full(states.shape[:1], states.shape[1], dtype=torch.long)
        return self._shortened(attention_mask.sum(-1))

    def _shortened(self, lengths: torch.Tensor) -> torch.Tensor:
        return -torch.div(-lengths, self.config.subsampling_factor, rounding_mode="floor")

    def to_logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.ctc_head(states)

    def normed(self, states: torch.Tensor) -> torch.Tensor:
        return self.encoder.norm(states)


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Positions ``[length, width]`` (Vaswani et al., 2017)."""
    half = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * half
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width]


def _save_as(model: Any, stock: Any, folder: str | Path, options: dict[str, Any]) -> Any:
    result = stock.save_pretrained(model, folder, **options)
    model.config.architectures = [stock.__name__]
    if options.get("is_main_process", True):
        model.config.save_pretrained(folder)
    return result
