"""Times of given words by a Whisper decoder that reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.data.example import SpokenWord
from training.decoding.attention_times import Reading, Times, spoken_times, word_bounds
from training.models.abilities import ReadText, TextReader
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, FRAMES_PER_SECOND

if TYPE_CHECKING:
    from training.models.architecture import SpeechModel
    from training.models.batch import Batch


@dataclass(frozen=True)
class AttentionAligner:
    """Words of given texts with their times (see `training.models.abilities.Aligner`).

    The decoder reads the text after the prompt of the row; nothing is generated. A word's confidence is the geometric
    mean of the probabilities of its tokens, each after those before it, before any suppression.

    reader: of the model's decoder. place: makes times of what was attended to. A text with more tokens than the decoder has
    positions or the clip has frames has no words.
    """

    reader: TextReader
    place: Callable[[Reading], Times] = spoken_times
    given_text: bool = False

    @classmethod
    def of(
        cls, architecture: SpeechModel, place: Callable[[Reading], Times] = spoken_times
    ) -> AttentionAligner:
        """The aligner of a model with the ability `attention`."""
        assert architecture.attention is not None
        return cls(architecture.attention.reader, place)

    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: Any = None
    ) -> list[tuple[SpokenWord, ...]]:
        tokens = [[self.reader.ids(word) for word in text.split()] for text in texts]
        room = self.reader.room(batch)
        tokens = [words if sum(map(len, words)) <= room else [] for words in tokens]
        if not any(tokens):
            return [()] * len(texts)
        flat = [[i for word in words for i in word] for words in tokens]
        read = self.reader(model, batch, flat, states)
        return [
            self._words(text, [len(word) for word in words], one, seconds)
            for text, words, one, seconds in zip(texts, tokens, read, batch["clip_seconds"], strict=True)
        ]

    def _words(
        self, text: str, sizes: Sequence[int], read: ReadText, seconds: float
    ) -> tuple[SpokenWord, ...]:
        if not sizes:
            return ()
        try:
            times = self.place(_reading(read, sizes, seconds))
        except ValueError:
            return ()
        return tuple(
            SpokenWord(
                text=word, start=start, end=end, confidence=math.exp(read.log_probs[first:stop].mean())
            )
            for word, (start, end), (first, stop) in zip(text.split(), times, word_bounds(sizes), strict=True)
        )


def _reading(read: ReadText, sizes: Sequence[int], seconds: float) -> Reading:
    """The part of what was attended to that belongs to the words and the clip."""
    frames = max(1, math.ceil(seconds * ENCODER_FRAMES_PER_SECOND))
    sound = read.log_mel[:, : max(1, math.ceil(seconds * FRAMES_PER_SECOND))]
    return Reading(read.weights[:, : sum(sizes) + 1, :frames], sizes, seconds, sound)
