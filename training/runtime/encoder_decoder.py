"""An exported encoder of waveforms with a text decoder (`e2e`) as a model that decodes, with ONNX Runtime and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import BatchCollator, UtteranceEncoder, new_tokens
from training.models.batch import Batch
from training.models.export_parts import TaskPrompts, WaveformInput
from training.models.safeguards import Search
from training.runtime.folder import Exported
from training.runtime.model import ExportedModel, rectangle
from training.runtime.onnx_decoder import CachedDecoder
from training.runtime.onnx_session import Session
from training.runtime.text import Detokenizer
from training.runtime.token_search import Rules


@dataclass(frozen=True)
class WaveformEncode(UtteranceEncoder):
    """One utterance to ``features`` float32 ``[samples]`` and a prompt of token ids per task.

    languages: of the transcript and of the translation, for utterances that name none.
    Raises ``ValueError`` for a clip shorter than one frame and for a language without a token.
    """

    session: Session
    prompts: TaskPrompts
    waveform: WaveformInput
    tasks: tuple[str, ...]
    languages: tuple[str, str]
    sample_rate: int

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        prompts = self._prompts(example, len(waveform))
        (features,) = self.session(waveform=waveform.astype(np.float32))
        return {
            "id": example.id,
            "seconds": len(waveform) / self.sample_rate,
            "features": features,
            "labels": prompts,
            "prompt": {task: len(ids) for task, ids in prompts.items()},
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound would raise."""
        self._prompts(example, round(seconds * self.sample_rate))

    def _prompts(self, example: Example, samples: int) -> dict[str, list[int]]:
        if samples < self.waveform.fewest_samples:
            raise ValueError(f"{samples} samples of audio, one frame takes {self.waveform.fewest_samples}")
        return {task: self.prompt(example, task) for task in self.tasks}

    def prompt(self, example: Example, task: str) -> list[int]:
        """The token ids between the start token and the text."""
        source, target = self.languages
        language = (example.language or source) if task == TRANSCRIBE else (example.target_language or target)
        if language not in self.prompts.languages:
            raise ValueError(f"language {language!r} has no token in this tokenizer")
        return [self.prompts.languages[language], self.prompts.tasks[task]]


@dataclass(frozen=True, kw_only=True)
class WaveformCollator(BatchCollator):
    """Batch of clips: ``features`` float32 and ``mask`` int64 ``[clips, samples]``, ``prompts`` int64
    ``[clips, task, length]`` with the start token."""

    tasks: tuple[str, ...]
    shortest: int
    start_id: int

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        lengths = np.array([len(row["features"]) for row in features])
        filled = np.zeros((len(features), max(self.shortest, int(lengths.max()))), dtype=np.float32)
        for place, row in enumerate(features):
            filled[place, : lengths[place]] = row["features"]
        prompts = [[[self.start_id, *row["labels"][task]] for task in self.tasks] for row in features]
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "features": filled,
            "mask": (np.arange(filled.shape[1]) < lengths[:, None]).astype(np.int64),
            "prompts": np.array(prompts, dtype=np.int64),
        }


@dataclass(frozen=True)
class EncoderDecoder:
    """The graphs of a folder."""

    encoder: Session
    decoder: CachedDecoder


@dataclass(frozen=True, kw_only=True)
class ExportedEncoderDecoder(ExportedModel):
    """An exported encoder of waveforms with a text decoder; ``model`` is its `EncoderDecoder`."""

    detokenizer: Detokenizer

    @classmethod
    def of(cls, exported: Exported) -> Self:
        """The model of a folder."""
        description, folder = exported.description, exported.folder
        prompts, waveform = description.task_prompts, description.waveform
        assert prompts is not None and waveform is not None
        return cls(
            model=EncoderDecoder(
                Session(folder / "encoder.onnx"),
                CachedDecoder(Session(folder / "decoder.onnx"), Rules(prompts.end)),
            ),
            tasks=description.tasks,
            languages=description.languages,
            sample_rate=description.sample_rate,
            encode=WaveformEncode(
                Session(folder / "features.onnx"),
                prompts,
                waveform,
                description.tasks,
                description.languages,
                description.sample_rate,
            ),
            collate=WaveformCollator(
                tasks=description.tasks, shortest=waveform.shortest, start_id=prompts.start
            ),
            description=description,
            detokenizer=Detokenizer(exported.tokenizer),
        )

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **generation: Any
    ) -> Mapping[str, np.ndarray]:
        """One encoding and one search for all tasks. Rows are filled up with the end token."""
        chosen: EncoderDecoder = self.model if model is None else model
        prompts = batch["prompts"]
        assert self.positions is not None and self.description.end is not None
        new = new_tokens(generation.get("max_new_tokens"), self.positions, prompts.shape[-1])
        if states is None:
            *cross, bias = chosen.encoder(features=batch["features"], mask=batch["mask"])
            states = [bias, *cross]
        search = Search(beams=generation.get("num_beams") or 1, new=new)
        written = chosen.decoder.write(prompts.reshape(-1, prompts.shape[-1]), states, search)
        rows = [one.ids for one in written]
        tasks = len(self.tasks)
        return {
            task: rectangle(rows[place::tasks], self.description.end) for place, task in enumerate(self.tasks)
        }

    def text(self, ids: Sequence[int]) -> str:
        return self.detokenizer(ids)
