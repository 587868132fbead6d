"""Times of given words from a Whisper decoder that reads them, and the text that it recognises itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from training.alignment.teacher import Clip, NoTimes, Timed
from training.alignment.warping import first_frames
from training.data.example import TRANSCRIBE, Example, SpokenWord
from training.decoding.attention_alignment import AttentionAligner
from training.decoding.attention_times import (
    LEAST_SHARE,
    Reading,
    Times,
    median_filter,
    times_and_shares,
    word_bounds,
)
from training.decoding.predict import longest_hypothesis
from training.models.architecture import Architecture, DecodeOptions
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND

FILTER_WIDTH = 7
"""Width of the median filter of the published way where the model's configuration states none."""
_TINY = 1e-9


class WhisperTeacher:
    """Feeds the reference to Whisper's decoder and reads the times of its words from the attention and the sound.

    The decoder reads the tokens of the reference; it does not generate them (see `training.decoding.attention_alignment`).
    A second decoding of the same encoder states generates the model's own text, which only serves to compute the word error
    rate. ``native``: the published word timestamps (`published_times`), each clip alone and in a context of 30 s; else clips
    go together, in the context that the model was trained with.
    """

    def __init__(self, architecture: Architecture, *, native: bool = False) -> None:
        if native:
            architecture = replace(architecture, collate=architecture.collate.in_full_context())
        self.architecture, self.tokenizer = architecture, architecture.processor.tokenizer
        self.sample_rate, self.language = architecture.sample_rate, architecture.languages[0]
        width = getattr(architecture.model.config, "median_filter_width", None) or FILTER_WIDTH
        place = partial(published_times, width=width) if native else certain_times
        self.aligner = AttentionAligner.of(architecture, place)

    def __call__(self, clips: Sequence[Clip]) -> list[Timed | NoTimes]:
        rows = [self._encoded(clip) for clip in clips]
        good = [row for row in rows if not isinstance(row, NoTimes)]
        found = iter(self._timed(good))
        return [row if isinstance(row, NoTimes) else next(found) for row in rows]

    def _encoded(self, clip: Clip) -> dict[str, Any] | NoTimes:
        """The clip's features, its words, and how they are given to the model."""
        words = clip.example.texts[TRANSCRIBE].split()
        spelled = " ".join(_spelling(word, clip.example) for word in words)
        example = replace(clip.example, texts={TRANSCRIBE: spelled})
        try:
            features = self.architecture.encode(example, clip.waveform)
        except ValueError as error:
            return NoTimes(str(error))
        return {**features, "words": words, "spelled": spelled}

    @torch.no_grad()
    def _timed(self, rows: list[dict[str, Any]]) -> list[Timed | NoTimes]:
        if not rows:
            return []
        model: Any = self.architecture.model
        batch = self.architecture.on_device(self.architecture.collate(rows), model)
        states = model.encode(batch["input_features"])
        if self.architecture.domains is not None:
            batch = self.architecture.domains.predict(model, batch, states).batch
        found = self.aligner(model, batch, [row["spelled"] for row in rows], states)
        recognised = self._recognised(batch, states, max(row["seconds"] for row in rows))
        return [_answer(*one) for one in zip(rows, found, recognised, strict=True)]

    def _recognised(self, batch: dict[str, Any], states: torch.Tensor | None, seconds: float) -> list[str]:
        bound = longest_hypothesis(seconds)
        plain = replace(self.architecture, aligner=None)
        decoded = plain.decode(batch, DecodeOptions(max_new_tokens=bound), states=states)
        return [one.text for one in decoded[TRANSCRIBE]]


def _answer(row: dict[str, Any], found: Sequence[SpokenWord], recognised: str) -> Timed | NoTimes:
    if not found:
        return NoTimes(f"{row['seconds']:.3f} s of audio have fewer frames than the text has tokens")
    words = (replace(word, text=text) for word, text in zip(found, row["words"], strict=True))
    return Timed(tuple(words), recognised)


def _spelling(word: str, example: Example) -> str:
    """A word of a corpus in capitals becomes lower case: Whisper has few tokens of capitals, most of them single letters."""
    return word.lower() if example.texts[TRANSCRIBE].isupper() else word


def certain_times(reading: Reading) -> Times:
    """As `spoken_times`; a word that the attention does not show (`LEAST_SHARE`) ends where it begins."""
    times, own = times_and_shares(reading)
    return [
        (start, end if share >= LEAST_SHARE else start)
        for (start, end), share in zip(times, own.tolist(), strict=True)
    ]


def published_times(reading: Reading, width: int = FILTER_WIDTH) -> Times:
    """Start and end of each word as in Whisper's published word timestamps: attention alone, warped to time.

    width: of the median filter over time, in encoder frames.
    """
    first = [frame / ENCODER_FRAMES_PER_SECOND for frame in token_frames(reading.weights, width)]
    bounds = word_bounds(reading.sizes)
    return [(min(first[a], reading.seconds), min(first[b], reading.seconds)) for a, b in bounds]


def token_frames(weights: np.ndarray, width: int) -> list[int]:
    """The frame at which each token begins, for attention ``[heads, tokens, frames]`` of the real frames.

    The last of the tokens is the end of the text, so that its frame is the last word's end.
    """
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), _TINY)
    spread = np.maximum(weights.std(axis=-2, keepdims=True), _TINY)
    weights = (weights - weights.mean(axis=-2, keepdims=True)) / spread
    return first_frames(-median_filter(weights, width).mean(axis=0)).tolist()
