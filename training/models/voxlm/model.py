"""A Whisper encoder that speaks to a causal language model, and says when each word was spoken.

Frames are stacked and projected into the language model's embeddings as in SLAM-ASR (Ma et al. 2024) and Ultravox;
the aligner of phase 2 is `training.models.voxlm.aligner`.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, encoder_frames, groups_of
from training.models.common.losses import token_loss
from training.models.common.targets import IGNORED
from training.models.common.whisper_encoder import encode_audio
from training.models.voxlm.aligner import AlignerOutput, WordAligner, alignment_loss
from training.models.voxlm.stored_config import VoxLMConfig, VoxLMProcessor

SCALED_HEADS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "logits_scale")
"""Fields of language models' configurations by which logits are more than a product with the output embeddings."""

ROWS_AT_ONCE = 8192
"""Rows of an embedding that are looked at together."""


class VoxLMOutput(CausalLMOutputWithPast):
    """With ``encoder_last_hidden_state``, so that one encoding serves loss, generation and alignment."""

    encoder_last_hidden_state: torch.Tensor | None = None


class Projector(nn.Module):
    """RMSNorm of ``stack`` frames side by side, then SwiGLU (Shazeer 2020): ``[…, width] -> […, out]``.

    scaled: the output has, in every dimension, mean and standard deviation of the language model's embeddings (see
    `match`). A language model has never met anything else: its embeddings lie around a mean that is far from 0 in a
    few dimensions, and what lies elsewhere gives gradients that are tens of times as large.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, width: int, hidden: int, out: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, out, bias=False)
        self.norm_out = nn.RMSNorm(out, eps=1e-6)
        self.scaled = scaled
        if scaled:
            self.register_buffer("mean", torch.zeros(out))
            self.register_buffer("deviation", torch.ones(out))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = self.norm(frames)
        projected = self.down_proj(F.silu(self.gate_proj(frames)) * self.up_proj(frames))
        normed = self.norm_out(
            projected.to(self.norm_out.weight.dtype)
        )  # autocast leaves it in half precision
        return self.mean + self.deviation * normed if self.scaled else normed

    @torch.no_grad()
    def match(self, embedding: nn.Embedding) -> None:
        """Take mean and deviation from the vectors that the module gives for its vocabulary, its own scaling (Gemma's
        square root of the width) included."""
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(total)
        count = embedding.num_embeddings
        for first in range(0, count, ROWS_AT_ONCE):
            ids = torch.arange(first, min(first + ROWS_AT_ONCE, count), device=embedding.weight.device)
            vectors = embedding(ids).to(total)
            total += vectors.sum(dim=0)
            squares += vectors.square().sum(dim=0)
        mean = total / count
        self.mean.copy_(mean)
        self.deviation.copy_((squares / count - mean.square()).clamp(min=0).sqrt())


class VoxLM(PreTrainedModel, GenerationMixin):
    """``audio_encoder``, ``projector``, ``language_model`` and, from phase 2 on, ``aligner``."""

    config: VoxLMConfig
    config_class = VoxLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(
        self, config: VoxLMConfig, encoder: WhisperEncoder | None = None, language_model: Any = None
    ) -> None:
        super().__init__(config)
        audio: Any = config.audio_config
        self.audio_encoder = WhisperEncoder(audio) if encoder is None else encoder
        self.language_model = (
            AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        )
        self.projector = Projector(
            audio.d_model * config.stack, config.projector_width, self._width, scaled=config.projector_scaled
        )
        self.aligner = None if config.aligner is None else WordAligner(**config.aligner)
        self.label_smoothing = 0.0
        self.alignment_weight, self.ctc_weight = 1.0, 0.3
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initial weights, each module's, for parts that a folder lacks (a new aligner is built on the meta
        device); encoder and language model, being pretrained models themselves, know their own ways."""
        start = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if start is not None:
            start()

    @property
    def _width(self) -> int:
        return int(self.config.text_config.hidden_size)  # type: ignore[union-attr]

    def get_input_embeddings(self) -> Any:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.language_model.get_output_embeddings()

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.language_model.forward).parameters

    def train(self, mode: bool = True) -> VoxLM:
        """Frozen parts keep still: without dropout their states are those of inference."""
        super().train(mode)
        still = (
            ("audio_encoder",) if self.aligner is None else ("audio_encoder", "projector", "language_model")
        )
        for name in still:
            getattr(self, name).eval()
        return self

    # Sound

    def encode(self, input_features: torch.Tensor) -> torch.Tensor:
        """Encoder states ``[batch, frames / 2, width]`` of log-mels ``[batch, mels, frames]``."""
        return encode_audio(self.audio_encoder, input_features.to(self.audio_encoder.conv1.weight.dtype))

    def embed(
        self, input_ids: torch.Tensor, states: torch.Tensor | None, frames: torch.Tensor | None
    ) -> torch.Tensor:
        """Embeddings ``[batch, length, width]`` with the projected sound in the place of the audio tokens.

        states ``[batch, encoder frames, width]``; frames ``[batch]``: log-mel frames of each clip. Raises ``ValueError``
        where a row has not as many audio tokens as its clip has groups of frames.
        """
        audio = input_ids.eq(self.config.audio_token_id or -1)
        # The placeholder need not have a row of its own: a matrix is never resized for it.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(audio, 0))
        if states is None or frames is None:
            return embeddings
        groups = groups_of(frames, self.config.stack)
        there = audio.sum(dim=-1)
        if not torch.equal(there, groups):
            raise ValueError(
                f"audio tokens in the rows: {there.tolist()}; groups of encoder frames in their clips: {groups.tolist()}"
            )
        sound = self.project(states, frames).to(embeddings.dtype)
        place = (audio.cumsum(dim=-1) - 1).clamp(min=0, max=sound.shape[1] - 1)
        return torch.where(
            audio[..., None], sound.gather(1, place[..., None].expand(-1, -1, sound.shape[-1])), embeddings
        )

    def project(self, states: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """``[batch, groups, width of the language model]``; what lies behind a clip's end is zero before the norm."""
        stack, count = self.config.stack, states.shape[1]
        real = torch.arange(count, device=states.device) < encoder_frames(frames)[:, None]
        states = F.pad(states * real[..., None], (0, 0, 0, -count % stack))
        return self.projector(
            states.to(self.projector.norm.weight.dtype).unflatten(1, (-1, stack)).flatten(2)
        )

    # Text

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        frames: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        states: torch.Tensor | None = None,
        token_words: torch.Tensor | None = None,
        words: torch.Tensor | None = None,
        starts: torch.Tensor | None = None,
        ends: torch.Tensor | None = None,
        ctc_labels: torch.Tensor | None = None,
        supervised: torch.Tensor | None = None,
        longest: int | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **stock: Any,
    ) -> Any:
        """The loss of a batch, or the language model's next logits where there are no labels.

        input_ids and attention_mask ``[batch, length]``, right padded (left padded for generation); input_features
        ``[batch, mels, log-mel frames]`` and frames ``[batch]``, log-mel frames of each clip; states: the encoder's,
        where they are known; longest: of ``frames``, so that nothing is computed behind it. labels ``[batch, 1, length]``, `IGNORED` but for response and EOS.
        Phase 2: token_words ``[batch, length]``, the word that a token belongs to, -1 for none; words ``[batch]``, how
        many there are; starts and ends ``[batch, words]`` in seconds; ctc_labels ``[batch, characters]``; supervised
        ``[batch]``, pointers of each row.
        position_ids ``[batch, length]``: generation counts them from each row's first real token, so that padding on the
        left does not move a language model with learnt positions (GPT-2).
        The loss is divided by ``num_items_in_batch``; when it is None by ``supervised``, or by the labels.
        """
        # What is frozen keeps nothing for a backward pass, even where checkpointing asks for gradients of its input.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.aligner is None):
            if states is None and input_features is not None:
                states = self.encode(input_features)
            if states is not None and longest is not None:
                states = states[:, : encoder_frames(longest)]
            if inputs_embeds is None:
                assert input_ids is not None
                inputs_embeds = self.embed(input_ids, states, frames)
            if labels is None:
                if position_ids is not None and self._takes_positions:
                    stock["position_ids"] = position_ids
                return self.language_model(
                    inputs_embeds=inputs_embeds, attention_mask=attention_mask, **stock
                )
            hidden = self.hidden(inputs_embeds, attention_mask)
        own = (labels != IGNORED).sum() if supervised is None else supervised.sum()
        items = num_items_in_batch if num_items_in_batch is not None else own.clamp(min=1)
        if self.aligner is None:
            loss = self._text_loss(hidden, labels)
        else:
            assert starts is not None and None not in (states, frames, token_words, words, ends)
            pointed = self.point(hidden, states, frames, token_words, words, starts.shape[1])  # type: ignore[arg-type]
            loss = self._alignment_loss(pointed, starts, ends, frames, words, ctc_labels)  # type: ignore[arg-type]
        result = VoxLMOutput(loss=loss / items)
        result.encoder_last_hidden_state = states
        return result

    def hidden(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Last states of the language model ``[batch, length, width]``."""
        inputs_embeds = inputs_embeds.to(self.get_input_embeddings().weight.dtype)
        return self.language_model.get_decoder()(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state

    def _text_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum over the labels; what stands at a place is foretold at the place before."""
        targets = labels[:, 0, 1:]
        if any(getattr(self.config.text_config, name, None) for name in SCALED_HEADS):
            raise ValueError(
                f"{self.language_model.config.model_type}: its logits are scaled, which is not supported"
            )
        head = self.get_output_embeddings()
        return token_loss(
            hidden[:, :-1], head.weight, targets, bias=head.bias, smoothing=self.label_smoothing
        )

    def _alignment_loss(
        self,
        pointed: AlignerOutput,
        starts: torch.Tensor,
        ends: torch.Tensor,
        frames: torch.Tensor,
        words: torch.Tensor,
        ctc_labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """Sum over the words, see `training.models.voxlm.aligner.alignment_loss`."""
        return alignment_loss(
            pointed,
            starts,
            ends,
            encoder_frames(frames),
            words,
            frame_seconds=1 / ENCODER_FRAMES_PER_SECOND,
            ctc_labels=ctc_labels,
            alignment_weight=self.alignment_weight,
            ctc_weight=self.ctc_weight,
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> Any:
        """The sound goes in with the prompt, and not again with every token."""
        sound = {name: kwargs.pop(name, None) for name in ("input_features", "frames", "states", "longest")}
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update({name: value for name, value in sound.items() if value is not None})
        return inputs

    # Words

    def point(
        self,
        hidden: torch.Tensor,
        states: torch.Tensor,
        frames: torch.Tensor,
        token_words: torch.Tensor,
        words: torch.Tensor,
        count: int,
    ) -> AlignerOutput:
        """Start and end pointers of the words, ``count`` in the longest row: a word's state is the mean of its tokens'."""
        assert self.aligner is not None
        member = F.one_hot(token_words + 1, count + 1)[..., 1:].to(hidden.dtype)
        pooled = torch.einsum("blw,bld->bwd", member, hidden) / member.sum(dim=1).clamp(min=1)[..., None]
        return self.aligner(states, encoder_frames(frames), pooled, words)


AutoConfig.register(VoxLMConfig.model_type, VoxLMConfig)
AutoModel.register(VoxLMConfig, VoxLM)
AutoModelForCausalLM.register(VoxLMConfig, VoxLM)
AutoProcessor.register(VoxLMConfig, VoxLMProcessor)
