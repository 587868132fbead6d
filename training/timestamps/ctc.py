"""Times of given words from the frames of a CTC model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, SpokenWord
from training.data.spelling import audible
from training.inference.ctc_decoding import greedy
from training.inference.ctc_vocabulary import CtcVocabulary
from training.inference.decoding import on_device
from training.models import Bundle, CtcFrames
from training.timestamps.teacher import Clip, NoTimes, Timed
from training.timestamps.viterbi import Aligned, align, confidence

BEFORE_SECONDS = 0.04
AFTER_SECONDS = 0.04
"""What a word may take of the blanks around its labels. CTC fires a label in a frame or two of its sound, and blanks
fill the rest of it, above all its end; but they fill pauses too. So a word reaches over blanks towards its
neighbours, but no further than this."""


class CtcTeacher:
    """Hears each clip once: its best path is what was heard, the best path that spells the reference gives times."""

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.ctc is not None
        self.bundle, self.frames = bundle, bundle.ctc
        self.vocabulary = CtcVocabulary(tuple(bundle.ctc.tokens), bundle.ctc.blank)
        self.sample_rate, self.language = bundle.sample_rate, bundle.languages[0]

    def __call__(self, clips: Sequence[Clip]) -> list[Timed | NoTimes]:
        rows = [self._encoded(clip) for clip in clips]
        good = [row for row in rows if not isinstance(row, NoTimes)]
        heard = iter(self._log_probs(good))
        return [
            row if isinstance(row, NoTimes) else self._timed(clip, next(heard))
            for clip, row in zip(clips, rows, strict=True)
        ]

    def _encoded(self, clip: Clip) -> dict[str, Any] | NoTimes:
        try:
            return self.bundle.encode(clip.example, clip.waveform)
        except ValueError as error:
            return NoTimes(str(error))

    def _log_probs(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        if not rows:
            return []
        model = self.bundle.model
        return self.frames.log_probs(model, on_device(self.bundle.collate(rows), model))

    def _timed(self, clip: Clip, log_probs: np.ndarray) -> Timed | NoTimes:
        heard = self.vocabulary.text(greedy(log_probs, self.vocabulary.blank))
        try:
            words = align_words(
                log_probs, clip.example.texts[TRANSCRIBE], self.frames, self.bundle.processor.tokenizer
            )
        except NoTimes as reason:
            return reason
        return Timed(words, heard)


def align_words(
    log_probs: np.ndarray, text: str, frames: CtcFrames, tokenizer: Any
) -> tuple[SpokenWord, ...]:
    """The words of ``text`` with times in seconds from the clip's start.

    log_probs is float ``[frames, vocabulary]``. Raises `NoTimes` for a word that the vocabulary cannot write, and
    where the frames are too few.
    """
    vocabulary = CtcVocabulary(tuple(frames.tokens), frames.blank)
    ids = tokenizer.encode(text)
    groups = _groups(text, [at for _, at in vocabulary.words(ids)], tokenizer)
    try:
        places = align(log_probs, ids, frames.blank)
    except ValueError as error:
        raise NoTimes(str(error)) from error
    found = [[places[i] for i in at] for at in groups]
    times = word_times(found, len(log_probs), frames)
    return tuple(
        SpokenWord(text=word, start=start, end=end, confidence=confidence(labels))
        for word, (start, end), labels in zip(text.split(), times, found, strict=True)
    )


def _groups(text: str, spelled: Sequence[Sequence[int]], tokenizer: Any) -> list[list[int]]:
    """Places of the labels of each word; one such as ``l'eau`` is spelled as two."""
    pieces = [len(audible(word).split()) for word in text.split()]
    for word, count in zip(text.split(), pieces, strict=True):
        missing = tokenizer.unknown(word)
        if missing or not count:
            reason = f"no token for {' '.join(missing)}" if missing else "no letters and no digits"
            raise NoTimes(f"{word!r} cannot be written in the model's vocabulary: {reason}")
    if sum(pieces) != len(spelled):
        raise NoTimes(f"{len(pieces)} words are spelled as {len(spelled)}, not as {sum(pieces)}")
    ends = np.cumsum(pieces).tolist()
    return [
        [i for at in spelled[end - count : end] for i in at] for end, count in zip(ends, pieces, strict=True)
    ]


def word_times(
    words: Sequence[Sequence[Aligned]], count: int, frames: CtcFrames
) -> list[tuple[float, float]]:
    """Start and end of each word in seconds of the clip, of ``count`` frames; see `AFTER_SECONDS`.

    Two words that reach for the same blanks part them in the proportion of their reaches.
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
