"""Whisper that encodes a clip once for all its tasks, on no more context than the batch needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.whisper.modeling_whisper import WhisperAttention

from training.models.common import SETTINGS
from training.models.common.cross_attention import SharedKeys
from training.models.common.ctc import ctc_loss
from training.models.common.drawn_tokens import DrawnTokens
from training.models.common.log_probabilities import LogProbabilities
from training.models.common.losses import token_loss
from training.models.common.whisper_encoder import encode_audio


class SharedWhisperAttention(SharedKeys, WhisperAttention):  # type: ignore[misc]
    """Whisper's, see `SharedKeys`."""


class MultitaskWhisper(WhisperForConditionalGeneration):
    """Stock Whisper with labels ``[batch, task, length]`` and a trimmed context.

    Weights, names and configuration are the stock class's (plus ``ctc_head`` where a CTC loss on the
    encoder was asked for, which stock loading leaves aside), and so is every call without three-axis labels.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.label_smoothing = 0.0
        settings = getattr(config, SETTINGS, None) or {}
        self.ctc_weight = float(settings.get("ctc_weight", 0.0))
        if self.ctc_weight:
            self.ctc_head = nn.Linear(config.d_model, len(settings["ctc_characters"]) + 1)
        for layer in self.model.decoder.layers:
            layer.encoder_attn.__class__ = SharedWhisperAttention  # its weights and their names stay

    def encode(self, input_features: torch.Tensor) -> torch.Tensor:
        """Encoder states; SpecAugment as the configuration has it, in training only."""
        return encode_audio(self.model.encoder, self.model._mask_input_features(input_features))

    def forward(
        self,
        input_features: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        frames: torch.Tensor | None = None,
        ctc_labels: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        **stock: Any,
    ) -> Any:
        """The loss over all tasks of a batch; anything else goes to the stock forward.

        input_features ``[batch, mels, frames]``; decoder_input_ids and labels ``[batch, task, length]``;
        frames ``[batch]``: log-mel frames of each clip; ctc_labels ``[batch, length]`` padded with -100;
        weights ``[batch]``: factors of the utterances' losses.
        The loss is divided by ``num_items_in_batch``, or by this batch's supervised tokens when it is None.
        """
        if labels is None or labels.dim() < 3:
            return super().forward(
                input_features=input_features,
                decoder_input_ids=decoder_input_ids,
                labels=labels,
                encoder_outputs=encoder_outputs,
                **stock,
            )
        assert input_features is not None and decoder_input_ids is not None
        states = self.encode(input_features)
        hidden = self.model.decoder(
            input_ids=decoder_input_ids.flatten(0, 1),
            encoder_hidden_states=states,
            use_cache=False,
        ).last_hidden_state
        parts = (states, hidden.unflatten(0, labels.shape[:2]), labels, frames, ctc_labels)
        loss = self._loss(*parts) if weights is None else self._weighted(weights, parts)
        items = num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum().clamp(min=1)
        return Seq2SeqLMOutput(loss=loss / items, encoder_last_hidden_state=states)

    def _loss(
        self,
        states: torch.Tensor,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        frames: torch.Tensor | None,
        ctc_labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """The sum over the utterances."""
        loss = token_loss(hidden, self.proj_out.weight, labels, smoothing=self.label_smoothing)
        if self.ctc_weight and ctc_labels is not None and frames is not None:
            lengths = torch.div(frames + 1, 2, rounding_mode="floor").clamp(max=states.shape[1])
            loss = loss + self.ctc_weight * ctc_loss(self.ctc_head(states), lengths, ctc_labels)
        return loss

    def _weighted(self, weights: torch.Tensor, parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The sum over the utterances, each times its weight."""
        sums = []
        for factor in weights.unique().tolist():
            rows = weights == factor
            sums.append(factor * self._loss(*(None if part is None else part[rows] for part in parts)))  # type: ignore[arg-type]
        return torch.stack(sums).sum()

    @torch.no_grad()
    def next_token(self, states: torch.Tensor, prompts: torch.Tensor, among: Sequence[int]) -> torch.Tensor:
        """The likeliest of the ids ``among`` after each of ``prompts [batch, length]``: int64 ``[batch]``."""
        choice = torch.tensor(among, device=prompts.device)
        return choice[self.next_logits(states, prompts)[:, choice].argmax(dim=-1)]

    @torch.no_grad()
    def next_logits(self, states: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Logits float32 ``[batch, vocabulary]`` of the token after each of ``prompts [batch, length]``."""
        hidden = self.model.decoder(
            input_ids=prompts, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state
        return self.proj_out(hidden[:, -1]).float()

    def generate_tasks(
        self,
        input_features: torch.Tensor,
        prompts: torch.Tensor,
        *,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> torch.Tensor:
        """Token ids ``[batch, task, length]`` after the prompts ``[batch, task, prompt]``.

        The encoder runs once (not at all where ``states`` are given), and one call of transformers'
        generation decodes all tasks. Whisper's own ``generate`` is for long-form audio with timestamps and
        is passed by; the suppressed tokens of the generation configuration hold here too.
        """
        states = self.encode(input_features) if states is None else states
        sequences = self._generate(states, prompts, **generation)
        return sequences[:, prompts.shape[-1] :].unflatten(0, (-1, prompts.shape[1]))

    def generate_scored(
        self, states: torch.Tensor, prompts: torch.Tensor, *, drawn_at: float = 0.0, **generation: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `generate_tasks`, and the mean log-probability of each text: float ``[batch, task]``.

        ``drawn_at``: temperature at which the tokens are drawn, by one beam; 0: they are not.
        """
        if self._beams(generation) > 1:
            found = self._generate(
                states, prompts, output_scores=True, return_dict_in_generate=True, **generation
            )
            sequences, means = found.sequences, found.sequences_scores
        else:
            scores = LogProbabilities(self.config.eos_token_id, generation.get("stopping_criteria", ()))  # type: ignore[arg-type]
            drawn = [DrawnTokens(drawn_at)] if drawn_at else []
            sequences = self._generate(states, prompts, logits_processor=[scores, *drawn], **generation)
            means = scores.means(sequences)
        shape = (-1, prompts.shape[1])
        return sequences[:, prompts.shape[-1] :].unflatten(0, shape), means.unflatten(0, shape)

    def _generate(self, states: torch.Tensor, prompts: torch.Tensor, **generation: Any) -> Any:
        if self._beams(generation) > 1:
            # Beam search moves the rows of what it keeps, so that each task needs its own.
            states = states.repeat_interleave(prompts.shape[1], dim=0)
        return GenerationMixin.generate(
            self,  # type: ignore[arg-type]
            decoder_input_ids=prompts.flatten(0, 1),
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=states.new_ones(states.shape[:2], dtype=torch.long),
            max_length=None,
            **generation,
        )

    def _beams(self, generation: Mapping[str, Any]) -> int:
        return generation.get("num_beams") or self.generation_config.num_beams or 1

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> Any:
        """Write the folder so that stock transformers takes it for what it is: a Whisper."""
        result = super().save_pretrained(save_directory, **kwargs)
        self.config.architectures = [WhisperForConditionalGeneration.__name__]
        if kwargs.get("is_main_process", True):
            self.config.save_pretrained(save_directory)
        return result
