"""A speech encoder and a text decoder that share one encoding of a clip among all its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.mbart.modeling_mbart import MBartAttention
from transformers.utils import ModelOutput

from training.models.common import SETTINGS
from training.models.common.cross_attention import SharedKeys
from training.models.common.ctc import ctc_loss
from training.models.common.losses import token_loss
from training.models.common.targets import IGNORED


@dataclass
class EncodedSpeech(ModelOutput):
    """The encoder output of generation: states in the decoder's width, and the mask of real frames.

    last_hidden_state ``[rows, frames, width]``; mask bool ``[rows, frames]`` or None. The stock class keeps the
    encoder's own states and the mask over samples, and projects and shortens them anew for every token.
    """

    last_hidden_state: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class SharedMBartAttention(SharedKeys, MBartAttention):  # type: ignore[misc]
    """mBART's, see `SharedKeys`."""


class SpeechTranslationModel(SpeechEncoderDecoderModel):
    """Stock `SpeechEncoderDecoderModel` with labels ``[batch, task, length]``.

    Weights, names and configuration are the stock class's, and the saved folder says so; beside them stands
    ``ctc_head`` where a CTC loss on the encoder was asked for, which stock loading reports and leaves aside.
    The projection between different widths is the stock one (``enc_to_dec_proj``).

    label_smoothing: set by the trainer. ctc_weight, mask_encoder: from the settings in the configuration.
    """

    accepts_loss_kwargs = True  # tells transformers' Trainer that the loss is divided by num_items_in_batch

    def __init__(
        self,
        config: SpeechEncoderDecoderConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, encoder, decoder)
        settings = getattr(self.config, SETTINGS, None) or {}
        self.label_smoothing = 0.0
        self.mask_encoder = bool(settings.get("mask_encoder", True))
        self.ctc_weight = float(settings.get("ctc_weight", 0.0))
        if self.ctc_weight:
            self.ctc_head = nn.Linear(self.encoder_output_dim, len(settings["ctc_characters"]) + 1)
        text: Any = self.decoder
        for layer in text.base_model.decoder.layers:
            layer.encoder_attn.__class__ = SharedMBartAttention  # its weights and their names stay

    def encode(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States ``[batch, frames, encoder width]`` and the bool mask ``[batch, frames]`` of real frames.

        The encoder itself sees the mask only where its feature extractor asks for one: wav2vec2-base was
        trained on zero padding and without, the large ones with it.
        """
        self._follow_freezing()
        states = self.encoder(
            input_values, attention_mask=attention_mask if self.mask_encoder else None
        ).last_hidden_state
        return states, self.frame_mask(states.shape[1], attention_mask)

    def frame_mask(self, frames: int, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """The mask over samples, shortened as the encoder shortens its input: bool ``[batch, frames]``."""
        if attention_mask is None:
            return None
        encoder: Any = self.encoder
        return encoder._get_feature_vector_attention_mask(frames, attention_mask)

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Encoder states in the decoder's width."""
        return self.enc_to_dec_proj(states) if hasattr(self, "enc_to_dec_proj") else states

    def _follow_freezing(self) -> None:
        """Without this a CNN frozen by patterns keeps all its activations: it marks its input itself."""
        cnn: Any = getattr(self.encoder, "feature_extractor", None)
        if cnn is not None and hasattr(cnn, "_requires_grad"):
            cnn._requires_grad = any(p.requires_grad for p in cnn.parameters())

    def forward(  # type: ignore[override]
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        ctc_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        inputs: torch.Tensor | None = None,
    ) -> Any:
        """The loss over all tasks of a batch; generation steps and anything else as the stock class has them.

        input_values ``[batch, samples]``, attention_mask ``[batch, samples]`` (1 where there is sound);
        decoder_input_ids and labels ``[batch, task, length]``; ctc_labels ``[batch, length]``, both filled up
        with `IGNORED`. Loss = (cross entropy + ctc_weight · CTC) / ``num_items_in_batch``, both sums; where that
        is None, / this batch's supervised tokens. ``encoder_last_hidden_state`` has the decoder's width.
        """
        if labels is not None and labels.dim() == 3:
            assert input_values is not None and decoder_input_ids is not None
            return self._multitask(
                input_values, attention_mask, decoder_input_ids, labels, ctc_labels, num_items_in_batch
            )
        if isinstance(encoder_outputs, EncodedSpeech):
            return self.decoder(
                input_ids=decoder_input_ids,
                attention_mask=decoder_attention_mask,
                encoder_hidden_states=encoder_outputs.last_hidden_state,
                encoder_attention_mask=encoder_outputs.mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
            )
        return super().forward(
            inputs=inputs,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            input_values=input_values,
            return_dict=return_dict,
        )

    def _multitask(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None,
        decoder_input_ids: torch.Tensor,
        labels: torch.Tensor,
        ctc_labels: torch.Tensor | None,
        num_items_in_batch: torch.Tensor | int | None,
    ) -> Seq2SeqLMOutput:
        states, mask = self.encode(input_values, attention_mask)
        projected = self.project(states)
        decoder: Any = self.decoder
        hidden = decoder.base_model.decoder(
            input_ids=decoder_input_ids.flatten(0, 1),
            encoder_hidden_states=projected,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        weight = decoder.get_output_embeddings().weight
        loss = token_loss(hidden, weight, labels.flatten(0, 1), smoothing=self.label_smoothing)
        if self.ctc_weight and ctc_labels is not None:
            loss = loss + self.ctc_weight * self._ctc(states, mask, ctc_labels)
        items = (
            num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum().clamp(min=1)
        )
        return Seq2SeqLMOutput(loss=loss / items, encoder_last_hidden_state=projected)

    def _ctc(self, states: torch.Tensor, mask: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
        rows, frames = states.shape[:2]
        lengths = torch.full((rows,), frames, device=states.device) if mask is None else mask.sum(dim=-1)
        return ctc_loss(self.ctc_head(states), lengths, targets)

    @torch.no_grad()
    def generate_tasks(
        self,
        input_values: torch.Tensor,
        prompts: torch.Tensor,
        *,
        attention_mask: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        **generation: Any,
    ) -> torch.Tensor:
        """Token ids ``[batch, task, length]`` after the prompts ``[batch, task, prompt]``.

        The encoder runs once (not at all where ``states``, the ``encoder_last_hidden_state`` of a forward pass,
        are given), and one call of transformers' generation decodes every task of every row.
        """
        tasks = prompts.shape[1]
        if states is None:
            states, mask = self.encode(input_values, attention_mask)
            states = self.project(states)
        else:
            mask = self.frame_mask(states.shape[1], attention_mask)
        # Rows for each task: transformers compares the prompts' number with theirs.
        encoded = EncodedSpeech(
            last_hidden_state=states.repeat_interleave(tasks, dim=0),
            mask=None if mask is None else mask.repeat_interleave(tasks, dim=0),
        )
        sequences = self.generate(  # type: ignore[misc]
            decoder_input_ids=prompts.flatten(0, 1), encoder_outputs=encoded, **generation
        )
        return sequences[:, prompts.shape[-1] :].unflatten(0, (-1, tasks))

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the folder so that stock transformers takes it for what it is."""
        result = super().save_pretrained(save_directory, **kwargs)
        self.config.architectures = [SpeechEncoderDecoderModel.__name__]
        if kwargs.get("is_main_process", True):
            self.config.save_pretrained(save_directory)
        return result
