"""An exported CTC model as a model that decodes: everything but the graphs is this library's own decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from training.data.example import TRANSCRIBE, Example
from training.models.abilities import CtcFrames
from training.models.architecture import BatchCollator, UtteranceEncoder
from training.models.batch import Batch
from training.models.common.log_mels import Context, check_length, log_mel, with_silence
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.export_parts import NEMO, CtcOutput, Description
from training.runtime.folder import Exported
from training.runtime.model import ExportedModel
from training.runtime.onnx_session import Session
from training.runtime.onnx_whisper import OnnxLogMels


@dataclass(frozen=True)
class CtcEncode(UtteranceEncoder):
    """One utterance to ``features`` float32 ``[time, …]``. Raises ``ValueError`` for a clip of less than two frames."""

    session: Session
    output: CtcOutput
    tokenizer: CtcTokenizer
    sample_rate: int
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        self._check(len(waveform))
        (features,) = self.session(waveform=waveform.astype(np.float32))
        return {
            "id": example.id,
            "seconds": len(waveform) / self.sample_rate,
            "features": features,
            "labels": {TRANSCRIBE: []},
            "prompt": {TRANSCRIBE: 0},
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding would raise."""
        self._check(round(seconds * self.sample_rate))

    def _check(self, samples: int) -> None:
        if samples < self.output.fewest_samples:
            raise ValueError(f"{samples} samples of audio are less than two frames of sound")

    def unwritable(self, example: Example) -> int:
        """Characters of the transcript that this vocabulary has no token for."""
        return len(self.tokenizer.unknown(example.texts.get(TRANSCRIBE, "")))


@dataclass(frozen=True)
class CtcCollator(BatchCollator):
    """Batch of clips: ``features`` float32 ``[batch, time, …]`` filled up with zeros, ``mask`` int64 ``[batch, time]``."""

    tasks: tuple[str, ...] = (TRANSCRIBE,)
    shortest: int = 1

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        sounds = [row["features"] for row in features]
        lengths = np.array([len(sound) for sound in sounds])
        longest = max(self.shortest, int(lengths.max()))
        filled = np.zeros((len(sounds), longest, *sounds[0].shape[1:]), dtype=np.float32)
        for place, sound in enumerate(sounds):
            filled[place, : len(sound)] = sound
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "features": filled,
            "mask": (np.arange(longest) < lengths[:, None]).astype(np.int64),
        }


@dataclass(frozen=True)
class LogMelCtcEncode(CtcEncode):
    """`CtcEncode` for Whisper's encoder: ``features`` are Whisper's log-mels ``[mels, log-mels]`` of the clip and a little
    silence, ``frames`` the log-mels of the clip alone. Raises ``ValueError`` also for a clip over 30 s."""

    log_mels: OnnxLogMels | None = None

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        self._check(len(waveform))
        features = log_mel(self.log_mels, waveform)
        assert self.log_mels is not None
        return {
            "id": example.id,
            "seconds": len(waveform) / self.sample_rate,
            "features": features,
            "frames": min(-(-len(waveform) // self.log_mels.hop_length), features.shape[-1]),
            "labels": {TRANSCRIBE: []},
            "prompt": {TRANSCRIBE: 0},
        }

    def _check(self, samples: int) -> None:
        super()._check(samples)
        check_length(self.log_mels, samples)


@dataclass(frozen=True, kw_only=True)
class LogMelCtcCollator(Context, BatchCollator):
    """Batch of clips: ``features`` float32 ``[batch, mels, log-mels]``, as long as `Context` says, silence behind each clip;
    ``mask`` int64 ``[batch, log-mels]``, 1 where the clip is."""

    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        length = self.frames([{**row, "input_features": row["features"]} for row in features])
        frames = np.array([row["frames"] for row in features])
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "features": np.stack([with_silence(row["features"], length) for row in features]),
            "mask": (np.arange(length) < frames[:, None]).astype(np.int64),
        }


class Encoder(Protocol):
    """Features and mask, as `CtcCollator` gives them, to log probabilities float32 ``[batch, frames, vocabulary]`` and the
    number of real frames int64 ``[batch]``."""

    def __call__(self, *, features: np.ndarray, mask: np.ndarray) -> Sequence[np.ndarray]: ...


class NemoEncoder:
    """`Encoder` for a folder in NeMo's layout."""

    def __init__(self, folder: Path) -> None:
        self.session = Session(folder / "model.onnx")

    def __call__(self, *, features: np.ndarray, mask: np.ndarray) -> Sequence[np.ndarray]:
        signal = np.ascontiguousarray(features.transpose(0, 2, 1))
        return self.session(audio_signal=signal, length=mask.sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class ExportedCtc(ExportedModel):
    """An exported CTC model; ``model`` is its `Encoder`."""

    tokenizer: CtcTokenizer

    @classmethod
    def of(cls, exported: Exported) -> Self:
        """The model of a folder with ``features.onnx`` and ``encoder.onnx``."""
        description, output = exported.description, exported.description.ctc
        assert output is not None
        tokenizer = CtcTokenizer.from_pretrained(exported.folder)
        frames = CtcFrames(
            tokens=output.tokens,
            blank=output.blank,
            seconds_per_frame=output.seconds_per_frame,
            edge_seconds=output.edge_seconds,
            log_probs=log_probs,
            speller=tokenizer,
        )
        nemo = exported.format == NEMO
        return cls(
            model=NemoEncoder(exported.folder) if nemo else Session(exported.folder / "encoder.onnx"),
            tasks=description.tasks,
            languages=description.languages,
            sample_rate=description.sample_rate,
            encode=_encode(exported, output, tokenizer),
            collate=_collate(description, output),
            frames=frames,
            tokenizer=tokenizer,
            description=description,
        )

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **generation: Any
    ) -> Mapping[str, Any]:
        """Not used: `SpeechModel.decode` reads the frames."""
        raise NotImplementedError

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)


def _encode(exported: Exported, output: CtcOutput, tokenizer: CtcTokenizer) -> CtcEncode:
    settings, rate = exported.description.log_mels, exported.description.sample_rate
    session = Session(exported.folder / "features.onnx")
    if settings is None:
        return CtcEncode(session, output, tokenizer, rate)
    return LogMelCtcEncode(session, output, tokenizer, rate, log_mels=OnnxLogMels(settings, session))


def _collate(description: Description, output: CtcOutput) -> BatchCollator:
    rule = description.context
    if rule is None:
        return CtcCollator(shortest=output.shortest)
    return LogMelCtcCollator(context=rule.context, margin=rule.margin)


def log_probs(model: Encoder, batch: Batch, states: Any = None) -> list[np.ndarray]:
    """float32 ``[real frames, vocabulary]`` of each row."""
    rows, lengths = model(features=batch["features"], mask=batch["mask"])
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
