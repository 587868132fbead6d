"""Times of given words from the CTC head that a Whisper of ours was trained with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from training.alignment.teacher import NoTimes, Timed
from training.alignment.whisper import WhisperTeacher
from training.decoding.ctc_alignment import align_words
from training.decoding.predict import on_device
from training.models.architecture import Batch, Bundle, CtcFrames
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND


class WhisperCtcTeacher(WhisperTeacher):
    """The head's frames place the words, the decoder says what it hears.

    The attention of a small Whisper from scratch hardly follows the sound; its CTC head has to (see `docs/log.md`).
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.characters: Any = bundle.encode.ctc  # type: ignore[attr-defined]
        self.frames = CtcFrames(
            tokens=("", *self.characters.characters),
            blank=0,
            seconds_per_frame=1 / ENCODER_FRAMES_PER_SECOND,
            log_probs=head_log_probs,
        )

    @torch.no_grad()
    def _timed(self, rows: list[dict[str, Any]]) -> list[Timed | NoTimes]:
        if not rows:
            return []
        batch = on_device(self.bundle.collate(rows), self.bundle.model)
        heard = self._heard(batch, None, max(row["seconds"] for row in rows))
        log_probs = self.frames.log_probs(self.bundle.model, batch)
        return [
            self._placed(row, frames, said) for row, frames, said in zip(rows, log_probs, heard, strict=True)
        ]

    def _placed(self, row: dict[str, Any], log_probs: np.ndarray, heard: str) -> Timed | NoTimes:
        log_probs = log_probs[: max(1, math.ceil(row["seconds"] * ENCODER_FRAMES_PER_SECOND))]
        try:
            return Timed(align_words(log_probs, " ".join(row["words"]), self.frames, self.characters), heard)
        except ValueError as reason:
            return NoTimes(str(reason))


def head_log_probs(model: Any, batch: Batch) -> list[np.ndarray]:
    """Log probabilities of the head, float32 ``[frames, characters and blank]`` of each row, padding with them."""
    logits = model.ctc_head(model.encode(batch["input_features"]))
    return list(logits.float().log_softmax(dim=-1).cpu().numpy())
