"""Times of given words from the CTC head that a Whisper of ours was trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.alignment.teacher import NoTimes, Timed
from training.alignment.whisper import WhisperTeacher
from training.decoding.ctc_alignment import align_words
from training.models.architecture import Architecture


class WhisperCtcTeacher(WhisperTeacher):
    """The frames of the CTC head give the times of the words; the decoder gives the recognised text.

    The attention of a small Whisper trained from scratch hardly follows the audio; its CTC head does (see
    `docs/internal/log.md`).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        assert architecture.attention is not None and architecture.attention.head is not None
        self.frames = architecture.attention.head

    @torch.no_grad()
    def _timed(self, rows: list[dict[str, Any]]) -> list[Timed | NoTimes]:
        if not rows:
            return []
        batch = self.architecture.on_device(self.architecture.collate(rows))
        recognised = self._recognised(batch, None, max(row["seconds"] for row in rows))
        log_probs = self.frames.log_probs(self.architecture.model, batch)
        return [
            self._placed(row, frames, text)
            for row, frames, text in zip(rows, log_probs, recognised, strict=True)
        ]

    def _placed(self, row: dict[str, Any], log_probs: np.ndarray, recognised: str) -> Timed | NoTimes:
        try:
            return Timed(align_words(log_probs, " ".join(row["words"]), self.frames), recognised)
        except ValueError as reason:
            return NoTimes(str(reason))
