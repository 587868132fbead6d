"""Whisper's log-mels of clips that are not padded to 30 s, and of batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from training.data.batch_policy import FULL_CONTEXT
from training.data.lengths import is_too_long

if TYPE_CHECKING:
    import torch

FRAMES_PER_SECOND = 100
MAX_FRAMES = 3000
ENCODER_FRAMES_PER_SECOND = 50
TAIL = 640
"""Samples of silence after each clip: four frames, of which the last one covers silence only."""


def longest_seconds(extractor: Any) -> float:
    """Whisper's 30 s."""
    return extractor.n_samples / extractor.sampling_rate


def check_length(extractor: Any, samples: int) -> None:
    """``ValueError`` for a clip longer than Whisper's 30 s and a tolerance; `log_mel` cuts the tolerance off."""
    seconds, most = samples / extractor.sampling_rate, longest_seconds(extractor)
    if is_too_long(seconds, most):
        raise ValueError(f"{seconds:.3f} s of audio, at most {most:g} s")


def count_frames(extractor: Any, samples: int) -> int:
    """Log-mel frames of a clip and the silence after it."""
    return min(samples + TAIL, extractor.n_samples) // extractor.hop_length


def encoder_frames(frames: Any) -> Any:
    """Encoder frames of a clip of so many log-mel frames (an int, or a tensor of them)."""
    return (frames + 1) // 2


def groups_of(frames: Any, stack: int) -> Any:
    """Groups of ``stack`` encoder frames in a clip of so many log-mel frames; the last group may be short."""
    return (encoder_frames(frames) + stack - 1) // stack


def log_mel(extractor: Any, waveform: np.ndarray) -> np.ndarray:
    """Log-mel float32 ``[mels, frames]`` of the clip and a little silence, 100 frames a second, 30 s at most.

    Equal to the stock extractor's 30 s, cut after the clip: the last frame is pure silence, so that
    `Context.padded` can go on with it.
    """
    check_length(extractor, len(waveform))
    padded = np.pad(waveform, (0, TAIL))[: extractor.n_samples]
    result = extractor(
        padded,
        sampling_rate=extractor.sampling_rate,
        padding="longest",
        truncation=False,
        return_tensors="np",
    )
    return result["input_features"][0]


def with_silence(log_mels: np.ndarray, length: int) -> np.ndarray:
    """``[mels, length]``: the clip goes on with its quietest value, which is that of silence after its normalisation.

    Not with its last frame, which SpecAugment may have masked.
    """
    missing = length - log_mels.shape[-1]
    return np.pad(log_mels, ((0, 0), (0, missing)), constant_values=log_mels.min())


@dataclass(frozen=True)
class Context:
    """The length to which a batch of log-mels is padded.

    ``context="full"`` is 30 s. ``"trimmed"`` is the longest clip and ``margin`` seconds; batches that the sampler marks
    (`training.data.sampler.FullContextBatch`, a ``full_share`` of the training's clips) have 30 s all the same.
    """

    context: str = "trimmed"
    margin: float = 1.0
    full_share: float = 0.0

    @property
    def padding(self) -> Literal["longest", "some_full", "full"]:
        """See `training.models.architecture.BatchCollator`."""
        if self.context == "full":
            return "full"
        return "some_full" if self.full_share else "longest"

    def in_full_context(self) -> Self:
        """The same, every batch of 30 s."""
        return replace(self, context="full")

    def frames(self, features: Sequence[dict[str, Any]]) -> int:
        """Log-mel frames of the batch; even, because the encoder halves them."""
        longest = max(row["input_features"].shape[-1] for row in features)
        if self.context == "full" or any(row.get(FULL_CONTEXT) for row in features):
            return MAX_FRAMES
        return min(MAX_FRAMES, 2 * ((longest + int(self.margin * FRAMES_PER_SECOND) + 1) // 2))

    def padded(self, features: Sequence[dict[str, Any]]) -> torch.Tensor:
        """`stacked` as a tensor."""
        import torch  # not above: exported folders are used without it

        return torch.from_numpy(self.stacked(features))

    def stacked(self, features: Sequence[dict[str, Any]]) -> np.ndarray:
        """float32 ``[batch, mels, frames]``; each clip goes on with its own last frame: silence after that clip's normalisation."""
        frames = self.frames(features)
        log_mels = [row["input_features"] for row in features]
        rows = [np.pad(row, ((0, 0), (0, frames - row.shape[-1])), mode="edge") for row in log_mels]
        return np.stack(rows)
