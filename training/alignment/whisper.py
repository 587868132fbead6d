"""Times of given words from the cross-attention of a Whisper decoder that reads them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from training.alignment.teacher import Clip, NoTimes, Timed
from training.alignment.warping import first_frames, median_filter
from training.data.example import TRANSCRIBE, Example, SpokenWord
from training.decoding.predict import longest_hypothesis
from training.models.architecture import Architecture, DecodeOptions
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND
from training.models.common.plain_text import text_ids

FILTER_WIDTH = 7
"""Width of the median filter where the model's configuration states none."""
_TINY = 1e-9


class WhisperTeacher:
    """Feeds the reference to Whisper's decoder and reads the times of its tokens from the cross-attention.

    The decoder reads the tokens of the reference; it does not generate them. Dynamic time warping aligns the
    cross-attention of the alignment heads to time, as in Whisper's published word timestamps. A second decoding of the
    same encoder states generates the model's own text, which only serves to compute the word error rate.
    ``native``: each clip alone and in a context of 30 s, as published; else clips go together, in the context that
    the model was trained with.
    """

    def __init__(self, architecture: Architecture, *, native: bool = False) -> None:
        if native:
            architecture = replace(architecture, collate=architecture.collate.in_full_context())
        self.architecture, self.tokenizer = architecture, architecture.processor.tokenizer
        self.sample_rate, self.language = architecture.sample_rate, architecture.languages[0]
        self.heads = alignment_heads(architecture.model)
        self.filter_width = getattr(architecture.model.config, "median_filter_width", None) or FILTER_WIDTH

    def __call__(self, clips: Sequence[Clip]) -> list[Timed | NoTimes]:
        rows = [self._encoded(clip) for clip in clips]
        good = [row for row in rows if not isinstance(row, NoTimes)]
        found = iter(self._timed(good))
        return [row if isinstance(row, NoTimes) else next(found) for row in rows]

    def _encoded(self, clip: Clip) -> dict[str, Any] | NoTimes:
        """The clip's features, its words, and the number of tokens of each."""
        words = clip.example.texts[TRANSCRIBE].split()
        spelled = [_spelling(word, clip.example) for word in words]
        example = replace(clip.example, texts={TRANSCRIBE: " ".join(spelled)})
        try:
            features = self.architecture.encode(example, clip.waveform)
        except ValueError as error:
            return NoTimes(str(error))
        sizes = [len(text_ids(self.tokenizer, f" {word}")) for word in spelled]
        count = len(features["labels"][TRANSCRIBE]) - features["prompt"][TRANSCRIBE] - 1
        if sum(sizes) != count:
            return NoTimes(f"the words have {sum(sizes)} tokens by themselves and {count} in their sentence")
        return {**features, "words": words, "sizes": sizes}

    @torch.no_grad()
    def _timed(self, rows: list[dict[str, Any]]) -> list[Timed | NoTimes]:
        if not rows:
            return []
        model: Any = self.architecture.model
        batch = self.architecture.on_device(self.architecture.collate(rows), model)
        states = model.encode(batch["input_features"])
        if self.architecture.domains is not None:
            batch = self.architecture.domains.predict(model, batch, states).batch
        attention, hidden = self._reading(batch["decoder_input_ids"][:, 0], states)
        recognised = self._recognised(batch, states, max(row["seconds"] for row in rows))
        first = batch["prompt_length"]
        return [
            Timed(
                # the last token of the prompt attends to the frames of the first token of the text
                self._words(row, attention[i, :, first - 1 :], hidden[i, first - 1 :], tokens[first:]),
                recognised[i],
            )
            for i, (row, tokens) in enumerate(zip(rows, batch["decoder_input_ids"][:, 0], strict=True))
        ]

    def _reading(self, inputs: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The decoder reads ``inputs [batch, length]``: attention ``[batch, heads, length, frames]`` and its states."""
        model: Any = self.architecture.model
        with _recorded_attention(model, self.heads) as layers:
            hidden = model.model.decoder(
                input_ids=inputs, encoder_hidden_states=states, use_cache=False
            ).last_hidden_state
        return torch.cat([layers[layer] for layer in sorted(layers)], dim=1), hidden

    def _recognised(self, batch: dict[str, Any], states: torch.Tensor | None, seconds: float) -> list[str]:
        bound = longest_hypothesis(seconds)
        decoded = self.architecture.decode(batch, DecodeOptions(max_new_tokens=bound), states=states)
        return [one.text for one in decoded[TRANSCRIBE]]

    def _words(
        self, row: dict[str, Any], attention: torch.Tensor, hidden: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[SpokenWord, ...]:
        """attention is ``[heads, length, frames]``, hidden ``[length, width]``; place i of both is before token i."""
        ends = list(accumulate(row["sizes"]))
        frames = max(1, math.ceil(row["seconds"] * ENCODER_FRAMES_PER_SECOND))
        weights = attention[:, : ends[-1] + 1, :frames].float().cpu().numpy()
        first = token_frames(weights, self.filter_width)
        model: Any = self.architecture.model
        logits = model.proj_out(hidden[: ends[-1]]).float()
        sure = logits.log_softmax(dim=-1).gather(1, tokens[: ends[-1], None])[:, 0].cpu().numpy()
        return tuple(
            SpokenWord(
                text=word,
                start=min(first[end - size] / ENCODER_FRAMES_PER_SECOND, row["seconds"]),
                end=min(first[end] / ENCODER_FRAMES_PER_SECOND, row["seconds"]),
                confidence=math.exp(sure[end - size : end].mean()),
            )
            for word, end, size in zip(row["words"], ends, row["sizes"], strict=True)
        )


def _spelling(word: str, example: Example) -> str:
    """A word of a corpus in capitals becomes lower case: Whisper has few tokens of capitals, most of them single letters."""
    return word.lower() if example.texts[TRANSCRIBE].isupper() else word


def token_frames(weights: np.ndarray, width: int) -> list[int]:
    """The frame at which each token begins, for attention ``[heads, tokens, frames]`` of the real frames.

    The last of the tokens is the end of the text, so that its frame is the last word's end.
    """
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), _TINY)
    spread = np.maximum(weights.std(axis=-2, keepdims=True), _TINY)
    weights = (weights - weights.mean(axis=-2, keepdims=True)) / spread
    return first_frames(-median_filter(weights, width).mean(axis=0)).tolist()


def alignment_heads(model: Any) -> dict[int, list[int]]:
    """The heads that follow the sound, by decoder layer: those that the checkpoint names, else all of the last half."""
    named = getattr(model.generation_config, "alignment_heads", None)
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    pairs = named or [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    found: dict[int, list[int]] = defaultdict(list)
    for layer, head in pairs:
        found[layer].append(head)
    return dict(found)


@contextmanager
def _recorded_attention(model: Any, heads: dict[int, list[int]]) -> Iterator[dict[int, torch.Tensor]]:
    """Cross-attention ``[batch, chosen heads, length, frames]`` of the decoder's pass in the block, by layer.

    Hooks store the chosen heads only: the attention of all heads of a large model takes gigabytes.
    """
    kept: dict[int, torch.Tensor] = {}
    before = model.config._attn_implementation

    def keeper(layer: int) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            kept[layer] = output[1][:, heads[layer]]

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
