"""From an utterance to a batch for Whisper's encoder with a CTC output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import BatchCollator
from training.models.common.log_mels import (
    Context,
    check_length,
    encoder_frames,
    log_mel,
    longest_seconds,
    with_silence,
)
from training.models.common.targets import IGNORED, rectangle
from training.models.ctc.collator import CtcEncode


@dataclass(frozen=True)
class WhisperFrames:
    """Frames of Whisper's encoder in a clip: one for two log-mels, ``hop`` samples each. The silence that follows the
    clip is no part of it."""

    hop: int

    def log_mels(self, samples: int) -> int:
        """Log-mels of a clip, the last, incomplete one too."""
        return -(-samples // self.hop)

    def of(self, samples: int) -> int:
        """Encoder frames of a clip."""
        return int(encoder_frames(self.log_mels(samples)))

    def samples(self, frames: int) -> int:
        """The fewest samples that give ``frames``, at least one log-mel's."""
        return max(self.hop, 2 * (frames - 1) * self.hop + 1)


@dataclass(frozen=True)
class WhisperCtcEncode(CtcEncode):
    """One utterance to Whisper's log-mels ``input_features [log-mels, mels]`` of the clip and a little silence,
    ``frames``, log-mels of the clip alone, and the ids of its transcript.

    Raises ``ValueError`` also for a clip over 30 s.
    """

    def sound(self, waveform: np.ndarray) -> dict[str, Any]:
        log_mels = log_mel(self.feature_extractor, waveform).T
        frames = min(self._frames.log_mels(len(waveform)), len(log_mels))
        return {"input_features": np.ascontiguousarray(log_mels), "frames": frames}

    def labels(self, example: Example, samples: int) -> list[int]:
        check_length(self.feature_extractor, samples)
        return super().labels(example, samples)

    @property
    def longest(self) -> float:
        return longest_seconds(self.feature_extractor)

    @property
    def _frames(self) -> WhisperFrames:
        assert isinstance(self.frames, WhisperFrames)
        return self.frames


@dataclass(frozen=True, kw_only=True)
class WhisperCtcCollator(Context, BatchCollator):
    """Batch of clips: ``input_features [batch, mels, log-mels]``, as long as `Context` says; ``attention_mask
    [batch, log-mels]``, 1 where the clip is; ``labels [batch, length]`` filled up with `IGNORED`."""

    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        length = self.frames([{**row, "input_features": row["input_features"].T} for row in features])
        sounds = np.stack([with_silence(row["input_features"].T, length) for row in features])
        frames = torch.tensor([row["frames"] for row in features])
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "input_features": torch.from_numpy(sounds),
            "attention_mask": (torch.arange(length) < frames[:, None]).long(),
            "labels": rectangle([row["labels"][TRANSCRIBE] for row in features], IGNORED),
        }
