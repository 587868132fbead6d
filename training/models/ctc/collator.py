"""From an utterance to a batch for an encoder with a CTC output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import BatchCollator, UtteranceEncoder
from training.models.common.ctc import check_feasible
from training.models.common.targets import IGNORED
from training.models.ctc.tokenizer import CtcTokenizer


class FrameCount(Protocol):
    """The number of frames that an encoder makes of a clip."""

    def of(self, samples: int) -> int: ...

    def samples(self, frames: int) -> int: ...


@dataclass(frozen=True)
class MelFrames:
    """Frames of log-mels every ``hop`` samples; convolutions of stride 2 keep one in ``factor``. There are ``edge``
    samples of silence on either side of the clip."""

    hop: int
    factor: int
    edge: int = 0

    def of(self, samples: int) -> int:
        """Frames of a clip: the last, incomplete group of log-mels counts too."""
        return -(-((samples + 2 * self.edge) // self.hop) // self.factor)

    def samples(self, frames: int) -> int:
        """The fewest samples that give ``frames``, at least one log-mel's."""
        return max(self.hop, ((frames - 1) * self.factor + 1) * self.hop - 2 * self.edge)


@dataclass(frozen=True)
class CtcEncode(UtteranceEncoder):
    """One utterance to ``sound`` (log-mels ``[frames, mels]`` as ``input_features``, or samples as
    ``input_values``) and the ids of its transcript.

    Raises ``ValueError`` for a clip of less than one frame, and for a transcript that the frames cannot be
    aligned with. An example without texts is encoded without labels: it can be transcribed, not trained on.
    """

    feature_extractor: Any
    tokenizer: CtcTokenizer
    frames: FrameCount
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        labels = self.labels(example, len(waveform))
        return {
            "id": example.id,
            "seconds": len(waveform) / self.feature_extractor.sampling_rate,
            **self.sound(waveform),
            "labels": {TRANSCRIBE: labels},
            "prompt": {TRANSCRIBE: 0},
            "unknown": self.unwritable(example),
        }

    def sound(self, waveform: np.ndarray) -> dict[str, Any]:
        """The model's input of a waveform float32 ``[samples]``, by its name."""
        extractor = self.feature_extractor
        sound = extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="np")
        name = extractor.model_input_names[0]
        values = np.asarray(sound[name][0], dtype=np.float32)
        if name == "input_features":  # the extractor gives one frame more than it counts
            values = values[: int(sound["attention_mask"][0].sum())]
        return {name: values}

    def labels(self, example: Example, samples: int) -> list[int]:
        """Ids of the transcript, none where there is none; ``ValueError`` where the sound is too short for them."""
        frames = self.frames.of(samples)
        if frames < 1 or samples < self.frames.samples(1) * 2:
            raise ValueError(f"{samples} samples of audio are less than two frames of sound")
        labels = self.tokenizer.encode(example.texts.get(TRANSCRIBE, ""))
        check_feasible(frames, labels)
        return labels

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding would raise, and ``ValueError`` for a transcript without letters and digits."""
        labels = self.labels(example, round(seconds * self.feature_extractor.sampling_rate))
        if TRANSCRIBE in example.texts and not labels:
            raise ValueError("the transcript has no letters and no digits")

    def unwritable(self, example: Example) -> int:
        """Characters of the transcript that this vocabulary has no token for."""
        return len(self.tokenizer.unknown(example.texts.get(TRANSCRIBE, "")))

    def most_labels(self, seconds: float) -> int:
        """Labels that fit a clip of that length, whatever repeats."""
        return max(1, self.frames.of(int(seconds * self.feature_extractor.sampling_rate)) // 2)


@dataclass(frozen=True)
class CtcCollator(BatchCollator):
    """Batch of clips: ``input_features`` ``[batch, frames, mels]`` or ``input_values`` ``[batch, samples]``,
    ``attention_mask`` over frames or samples, ``labels`` ``[batch, length]`` filled up with `IGNORED`.

    Clips are filled up with zeros to the longest, and to ``shortest`` (SpecAugment within wav2vec2 refuses
    inputs that are shorter than one of its spans).
    """

    tasks: tuple[str, ...] = (TRANSCRIBE,)
    shortest: int = 1

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        name = "input_features" if "input_features" in features[0] else "input_values"
        sounds = [torch.from_numpy(row[name]) for row in features]
        lengths = torch.tensor([len(sound) for sound in sounds])
        values = pad_sequence(sounds, batch_first=True)
        if values.shape[1] < self.shortest:
            missing = values.new_zeros(len(values), self.shortest - values.shape[1], *values.shape[2:])
            values = torch.cat((values, missing), dim=1)
        labels = [torch.tensor(row["labels"][TRANSCRIBE], dtype=torch.long) for row in features]
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            name: values,
            "attention_mask": (torch.arange(values.shape[1]) < lengths[:, None]).long(),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }
