"""Times of given words by a Whisper decoder that reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from training.data.example import TRANSCRIBE, SpokenWord
from training.decoding.attention_times import Reading, Times, spoken_times, word_bounds
from training.decoding.cross_attention import alignment_heads, read
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, FRAMES_PER_SECOND
from training.models.common.plain_text import text_ids

if TYPE_CHECKING:
    from training.models.architecture import Architecture
    from training.models.batch import Batch


@dataclass(frozen=True)
class AttentionAligner:
    """Words of given texts with their times (see `training.models.abilities.Aligner`).

    The decoder reads the text after the prompt of the row; nothing is generated. A word's confidence is the geometric
    mean of the probabilities of its tokens, each after those before it, before any suppression.

    tokenizer: of the model. transcribe_id: token that marks the prompts of transcripts. heads: see `alignment_heads`.
    place: makes times of what was attended to. A text with more tokens than the decoder has positions or the clip has frames
    has no words.
    """

    tokenizer: Any
    transcribe_id: int
    heads: Mapping[int, Sequence[int]]
    place: Callable[[Reading], Times] = spoken_times
    given_text: bool = False

    @classmethod
    def of(
        cls, architecture: Architecture, place: Callable[[Reading], Times] = spoken_times
    ) -> AttentionAligner:
        """The aligner of a Whisper."""
        tokenizer = architecture.processor.tokenizer
        transcribe_id = tokenizer.convert_tokens_to_ids(f"<|{TRANSCRIBE}|>")
        return cls(tokenizer, transcribe_id, alignment_heads(architecture.model), place)

    @torch.no_grad()
    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: torch.Tensor | None = None
    ) -> list[tuple[SpokenWord, ...]]:
        prompts = self._prompts(batch)
        tokens = [[text_ids(self.tokenizer, f" {word}") for word in text.split()] for text in texts]
        room = model.config.max_target_positions - prompts.shape[1]
        tokens = [words if sum(map(len, words)) <= room else [] for words in tokens]
        if not any(tokens):
            return [()] * len(texts)
        if states is None:
            states = model.encode(batch["input_features"])
        flat = [torch.tensor([i for word in words for i in word], dtype=torch.long) for words in tokens]
        padded = pad_sequence(flat, batch_first=True, padding_value=self.tokenizer.eos_token_id).to(prompts)
        attention, hidden = read(model, self.heads, torch.cat([prompts, padded], dim=1), states)
        # The last token of the prompt attends to the frames of the first token of the text.
        attention, hidden = (part[..., prompts.shape[1] - 1 :, :] for part in (attention, hidden))
        found = []
        for i, (text, words) in enumerate(zip(texts, tokens, strict=True)):
            reading = _reading(batch, i, [len(word) for word in words], attention[i])
            sure = _log_probs(model, hidden[i], flat[i].to(prompts)) if words else np.zeros(0)
            found.append(self._words(text, reading, sure))
        return found

    def _prompts(self, batch: Batch) -> torch.Tensor:
        """The decoder's prompts for transcripts, int64 ``[batch, length]``."""
        prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
        task = (prompts == self.transcribe_id).any(dim=-1).int().argmax(dim=1)
        return prompts[torch.arange(len(prompts), device=prompts.device), task]

    def _words(self, text: str, reading: Reading, sure: np.ndarray) -> tuple[SpokenWord, ...]:
        if not reading.sizes:
            return ()
        try:
            times = self.place(reading)
        except ValueError:
            return ()
        return tuple(
            SpokenWord(text=word, start=start, end=end, confidence=math.exp(sure[first:stop].mean()))
            for word, (start, end), (first, stop) in zip(
                text.split(), times, word_bounds(reading.sizes), strict=True
            )
        )


def _reading(batch: Batch, row: int, sizes: Sequence[int], attention: torch.Tensor) -> Reading:
    """The part of a row's attention ``[heads, length, frames]`` that belongs to its words and its clip."""
    seconds = batch["clip_seconds"][row]
    frames = max(1, math.ceil(seconds * ENCODER_FRAMES_PER_SECOND))
    sound = batch["input_features"][row, :, : max(1, math.ceil(seconds * FRAMES_PER_SECOND))]
    weights = attention[:, : sum(sizes) + 1, :frames].float().cpu().numpy()
    return Reading(weights, sizes, seconds, sound.float().cpu().numpy())


def _log_probs(model: Any, hidden: torch.Tensor, tokens: torch.Tensor) -> np.ndarray:
    """Log probability of each token, float ``[tokens]``; place i of ``hidden [length, width]`` predicts token i."""
    logits = model.proj_out(hidden[: len(tokens)]).float()
    return logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0].cpu().numpy()
