"""Times of given words from the frames of a CTC model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.alignment.teacher import Clip, NoTimes, Timed
from training.data.example import TRANSCRIBE
from training.decoding.ctc_alignment import align_words
from training.decoding.ctc_decoding import greedy
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.models.architecture import Architecture


class CtcTeacher:
    """Runs the model once per clip. The best path gives the recognised text; the best path that spells the reference
    gives the times of its words."""

    def __init__(self, architecture: Architecture) -> None:
        assert architecture.frames is not None
        self.architecture, self.frames = architecture, architecture.frames
        self.vocabulary = CtcVocabulary(tuple(architecture.frames.tokens), architecture.frames.blank)
        self.sample_rate, self.language = architecture.sample_rate, architecture.languages[0]

    def __call__(self, clips: Sequence[Clip]) -> list[Timed | NoTimes]:
        rows = [self._encoded(clip) for clip in clips]
        good = [row for row in rows if not isinstance(row, NoTimes)]
        log_probs = iter(self._log_probs(good))
        return [
            row if isinstance(row, NoTimes) else self._timed(clip, next(log_probs))
            for clip, row in zip(clips, rows, strict=True)
        ]

    def _encoded(self, clip: Clip) -> dict[str, Any] | NoTimes:
        try:
            return self.architecture.encode(clip.example, clip.waveform)
        except ValueError as error:
            return NoTimes(str(error))

    def _log_probs(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        if not rows:
            return []
        model = self.architecture.model
        return self.frames.log_probs(
            model, self.architecture.on_device(self.architecture.collate(rows), model)
        )

    def _timed(self, clip: Clip, log_probs: np.ndarray) -> Timed | NoTimes:
        recognised = self.vocabulary.text(greedy(log_probs, self.vocabulary.blank))
        try:
            words = align_words(log_probs, clip.example.texts[TRANSCRIBE], self.frames)
        except ValueError as reason:
            return NoTimes(str(reason))
        return Timed(words, recognised)
