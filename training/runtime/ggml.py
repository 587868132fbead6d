"""A ggml file in whisper.cpp, through pywhispercpp: to compare it with its original, and to use it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from training.base.errors import UserError
from training.data.example import TRANSLATE, Example
from training.models.architecture import BatchCollator, Decoded, DecodeOptions, UtteranceEncoder
from training.models.batch import Batch
from training.models.common.log_mels import Context, check_length
from training.models.export_parts import Description
from training.runtime.folder import Exported
from training.runtime.log_mels import ExtractorSizes
from training.runtime.model import ExportedModel
from training.runtime.packages import needed

FILE = "ggml-model.bin"


@dataclass(frozen=True)
class GgmlEncode(UtteranceEncoder):
    """One utterance to its samples and language: whisper.cpp computes its own log-mels.

    Raises ``ValueError`` for a language without a token, and for a clip over 30 s.
    """

    description: Description
    samples: ExtractorSizes
    tasks: tuple[str, ...]

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        self.check(example, len(waveform) / self.samples.sampling_rate)
        language = example.language or self.description.languages[0]
        return {
            "id": example.id,
            "seconds": len(waveform) / self.samples.sampling_rate,
            "waveform": waveform[: self.samples.n_samples].astype(np.float32),
            "language": language,
            "labels": {task: [] for task in self.tasks},
            "prompt": dict.fromkeys(self.tasks, 0),
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding would raise."""
        assert self.description.prompts is not None
        check_length(self.samples, round(seconds * self.samples.sampling_rate))
        language = example.language or self.description.languages[0]
        if language not in self.description.prompts.languages:
            raise ValueError(f"language {language!r} has no token in this tokenizer")


@dataclass(frozen=True, kw_only=True)
class GgmlCollator(BatchCollator):
    """Clips one by one, and how many encoder frames each may see (0: all of 30 s)."""

    tasks: tuple[str, ...]
    context: Context
    hop: int

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        full = self.context.context == "full"
        longest = max(len(row["waveform"]) for row in features) // self.hop + 4
        empty = [{"id": row["id"], "input_features": np.empty((0, longest))} for row in features]
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "waveforms": [row["waveform"] for row in features],
            "languages": [row["language"] for row in features],
            "audio_ctx": 0 if full else self.context.frames(empty) // 2,
        }


@dataclass(frozen=True, kw_only=True)
class ExportedGgml(ExportedModel):
    """A ggml file; ``model`` is pywhispercpp's. It tells text alone, no token ids."""

    @classmethod
    def of(cls, exported: Exported) -> Self:
        """The model of a folder. Raises `UserError` where pywhispercpp is not installed or cannot read the file."""
        engine = needed("pywhispercpp.model", "ggml")
        description, path = exported.description, exported.folder / FILE
        settings, context = description.log_mels, description.context
        assert settings is not None and context is not None
        try:
            model = engine.Model(str(path), redirect_whispercpp_logs_to=None)
        except Exception as error:  # the binding raises nothing narrower
            raise UserError(
                f"{path}: whisper.cpp cannot read it ({error}); export the model again"
            ) from error
        return cls(
            model=model,
            tasks=description.tasks,
            languages=description.languages,
            sample_rate=description.sample_rate,
            encode=GgmlEncode(description, ExtractorSizes(settings), description.tasks),
            collate=GgmlCollator(
                tasks=description.tasks,
                context=Context(context=context.context, margin=context.margin),
                hop=settings.hop_length,
            ),
            description=description,
        )

    def decode(
        self, batch: Batch, options: DecodeOptions, *, model: Any = None, states: Any = None
    ) -> dict[str, list[Decoded]]:
        """One text per row and task, greedy, without whisper.cpp's second tries at higher temperatures."""
        chosen = self.model if model is None else model
        return {
            task: [
                Decoded(self._text(chosen, waveform, language, task, batch["audio_ctx"]))
                for waveform, language in zip(batch["waveforms"], batch["languages"], strict=True)
            ]
            for task in self.tasks
        }

    def _text(self, model: Any, waveform: np.ndarray, language: str, task: str, context: int) -> str:
        assert self.description.prompts is not None
        segments = model.transcribe(
            waveform,
            language=language,
            translate=task == TRANSLATE,
            audio_ctx=context,
            no_timestamps=True,
            single_segment=True,
            no_context=True,
            temperature_inc=0.0,
            no_speech_thold=1.0,
            suppress_nst=bool(self.description.prompts.suppress),
            greedy={"best_of": 1},
            print_progress=False,
            n_threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        )
        return " ".join("".join(segment.text for segment in segments).split())

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **generation: Any
    ) -> Mapping[str, Any]:
        """Not used: whisper.cpp gives text."""
        raise NotImplementedError

    def text(self, ids: Sequence[int]) -> str:
        raise NotImplementedError
