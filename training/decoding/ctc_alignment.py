"""Times of given words from the frames of a CTC model, by forced alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.example import SpokenWord
from training.data.spelling import audible
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.decoding.viterbi import Aligned, align, confidence

if TYPE_CHECKING:
    from training.models.abilities import CtcFrames
    from training.models.batch import Batch

BEFORE_SECONDS = 0.04
AFTER_SECONDS = 0.04
"""Seconds by which a word may extend over the blanks before and after its labels. CTC emits a label in one or two frames
of its sound and blanks in the others, above all at its end. Pauses consist of blanks too. A word is therefore
extended over blanks towards its neighbours, at most by these lengths."""


@dataclass(frozen=True)
class CtcAligner:
    """Words of given texts with their times (see `training.models.abilities.Aligner`).

    A text that the frames cannot spell has no words.
    """

    frames: CtcFrames
    given_text: bool = False

    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: Any = None
    ) -> list[tuple[SpokenWord, ...]]:
        rows = self.frames.log_probs(model, batch, states)
        return [self._words(log_probs, text) for log_probs, text in zip(rows, texts, strict=True)]

    def _words(self, log_probs: np.ndarray, text: str) -> tuple[SpokenWord, ...]:
        try:
            return align_words(log_probs, text, self.frames) if text.split() else ()
        except ValueError:
            return ()


def align_words(log_probs: np.ndarray, text: str, frames: CtcFrames) -> tuple[SpokenWord, ...]:
    """Align the words of a text to the frames of a clip.

    Args:
        log_probs: float ``[frames, vocabulary]``.
        text: the words, separated by white space.
        frames: of the model that gave ``log_probs``.

    Returns:
        The words with times in seconds from the start of the clip, and confidence from 0 to 1.

    Raises:
        ValueError: the vocabulary lacks a character of a word, or there are too few frames.
    """
    vocabulary = CtcVocabulary(tuple(frames.tokens), frames.blank)
    ids = frames.speller.encode(text)
    groups = _groups(text, [at for _, at in vocabulary.words(ids)], frames.speller)
    places = align(log_probs, ids, frames.blank)
    found = [[places[i] for i in at] for at in groups]
    times = word_times(found, len(log_probs), frames)
    return tuple(
        SpokenWord(text=word, start=start, end=end, confidence=confidence(labels))
        for word, (start, end), labels in zip(text.split(), times, found, strict=True)
    )


def _groups(text: str, spelled: Sequence[Sequence[int]], speller: Any) -> list[list[int]]:
    """Indices of the labels of each word; a word such as ``l'eau`` is spelled as two."""
    pieces = [len(audible(word).split()) for word in text.split()]
    for word, count in zip(text.split(), pieces, strict=True):
        missing = speller.unknown(word)
        if missing or not count:
            reason = f"no token for {' '.join(missing)}" if missing else "no letters and no digits"
            raise ValueError(f"{word!r} cannot be written in the model's vocabulary: {reason}")
    if sum(pieces) != len(spelled):
        raise ValueError(f"{len(pieces)} words are spelled as {len(spelled)}, not as {sum(pieces)}")
    ends = np.cumsum(pieces).tolist()
    return [
        [i for at in spelled[end - count : end] for i in at] for end, count in zip(ends, pieces, strict=True)
    ]


def word_times(
    words: Sequence[Sequence[Aligned]], count: int, frames: CtcFrames
) -> list[tuple[float, float]]:
    """Start and end of each word in seconds of the clip, of ``count`` frames; see `AFTER_SECONDS`.

    Blanks that two words could both take are divided between them in proportion to `AFTER_SECONDS` and
    `BEFORE_SECONDS`.
    """
    second, edge = frames.seconds_per_frame, frames.edge_seconds
    starts = np.array([labels[0].start for labels in words]) * second
    ends = np.array([labels[-1].stop for labels in words]) * second
    share = BEFORE_SECONDS / (BEFORE_SECONDS + AFTER_SECONDS)
    between = starts[1:] - ends[:-1]
    starts -= np.minimum(np.concatenate((starts[:1], between * share)), BEFORE_SECONDS)
    ends += np.minimum(np.append(between * (1 - share), count * second - ends[-1]), AFTER_SECONDS)
    bounds = np.stack((starts, ends), axis=1) - edge  # the frames hold silence on either side of the clip
    return [(float(a), float(b)) for a, b in np.clip(bounds, 0.0, count * second - 2 * edge)]
