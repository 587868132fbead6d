"""Whisper's encoder with a CTC output: pretrained features for a model that writes frame by frame."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from training.models.common.log_mels import encoder_frames
from training.models.common.whisper_encoder import encode_audio
from training.models.ctc.model import BLANK_ID, CtcForward, TransformerBlock, TransformerCtcConfig


class WhisperCtcConfig(PreTrainedConfig):
    """The sizes of Whisper's encoder, by the names of `WhisperConfig`, and of the output.

    head_layers: Transformer layers between encoder and output. head_kernel: of their convolution modules, in frames of
    20 ms; 0: they have none. head_dropout: of these layers.
    """

    model_type = "polyvox_whisper_ctc"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
    }

    vocab_size: int = 32
    num_mel_bins: int = 80
    d_model: int = 512
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    encoder_layerdrop: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation_function: str = "gelu"
    max_source_positions: int = 1500
    scale_embedding: bool = False
    init_std: float = 0.02
    head_layers: int = 0
    head_kernel: int = 0
    head_dropout: float = 0.1
    pad_token_id: int | None = BLANK_ID

    @classmethod
    def of(cls, stock: WhisperConfig, **ours: Any) -> WhisperCtcConfig:
        """The encoder of a stock Whisper; ``ours``: the other fields."""
        return cls(**{name: getattr(stock, name) for name in STOCK_FIELDS}, **ours)


STOCK_FIELDS = (
    *("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    *("encoder_layerdrop", "dropout", "attention_dropout", "activation_dropout", "activation_function"),
    *("max_source_positions", "scale_embedding", "init_std"),
)


class HeadLayers(nn.Module):
    """Transformer layers on the encoder's states, with a layer norm behind them."""

    def __init__(self, config: WhisperCtcConfig) -> None:
        super().__init__()
        sizes = TransformerCtcConfig(
            d_model=config.d_model,
            num_heads=config.encoder_attention_heads,
            d_ff=config.encoder_ffn_dim,
            dropout=config.head_dropout,
            conv_kernel=config.head_kernel,
        )
        self.layers = nn.ModuleList(TransformerBlock(sizes) for _ in range(config.head_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, states: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """Map states ``[batch, frames, width]`` to states of that shape. padding: bool ``[batch, frames]``."""
        for layer in self.layers:
            states = layer(states, padding)
        return self.norm(states)


class WhisperCtc(CtcForward, PreTrainedModel):
    """Whisper's encoder, `HeadLayers` where the configuration asks for some, and a CTC output."""

    config_class = WhisperCtcConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: WhisperCtcConfig, encoder: WhisperEncoder | None = None) -> None:
        super().__init__(config)
        self.encoder = WhisperEncoder(config) if encoder is None else encoder  # type: ignore[arg-type]
        self.head_layers = HeadLayers(config) if config.head_layers else None
        self.ctc_head = nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initial weights, each module's; the encoder is pretrained or initialises itself."""

    def states(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of log-mels ``[batch, mels, frames]``, silence after each clip; attention_mask: 1 where the clip is."""
        return self.above(encode_audio(self.encoder, sound), attention_mask)

    def above(
        self, states: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The result of `states` for states of the encoder."""
        lengths = self.lengths(attention_mask, states)
        if self.head_layers is not None:
            padding = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
            states = self.head_layers(states, None if attention_mask is None else padding)
        return states, lengths

    def lengths(self, attention_mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        if attention_mask is None:
            return states.new_full(states.shape[:1], states.shape[1], dtype=torch.long)
        return encoder_frames(attention_mask.sum(-1))

    def to_logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.ctc_head(states)

    def normed(self, states: torch.Tensor) -> torch.Tensor:
        return self.encoder.layer_norm(states)


AutoConfig.register(WhisperCtcConfig.model_type, WhisperCtcConfig)
