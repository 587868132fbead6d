"""An exported speech encoder with a language model (`voxlm`) as a model that decodes, with ONNX Runtime and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import (
    BatchCollator,
    Decoded,
    DecodeOptions,
    UtteranceEncoder,
    new_tokens,
)
from training.models.batch import Batch
from training.models.common.log_mels import Context, check_length, encoder_frames, groups_of, log_mel
from training.models.export_parts import SpokenPrompt
from training.models.safeguards import Search
from training.runtime.folder import Exported
from training.runtime.model import ExportedModel, rectangle
from training.runtime.onnx_decoder import LONGER, PAST, empty_caches, write
from training.runtime.onnx_session import Session
from training.runtime.onnx_whisper import OnnxLogMels
from training.runtime.pointed_words import PointedWords
from training.runtime.spoken_prompts import placed
from training.runtime.text import Detokenizer
from training.runtime.token_search import Rules


@dataclass(frozen=True)
class SpokenEncode(UtteranceEncoder):
    """One utterance to ``input_features`` float32 ``[mels, log-mels]``. Raises ``ValueError`` for a clip over 30 s."""

    log_mels: OnnxLogMels
    prompt: SpokenPrompt
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return {
            "id": example.id,
            "seconds": len(waveform) / self.log_mels.sampling_rate,
            "input_features": log_mel(self.log_mels, waveform),
            "labels": {TRANSCRIBE: list(self.prompt.after)},
            "prompt": {TRANSCRIBE: len(self.prompt.after)},
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound would raise."""
        check_length(self.log_mels, round(seconds * self.log_mels.sampling_rate))


@dataclass(frozen=True, kw_only=True)
class SpokenCollator(Context, BatchCollator):
    """Batch of clips: ``input_features`` float32 ``[clips, mels, log-mels]``, ``frames`` int64 ``[clips]``, log-mels of each clip,
    and ``clip_seconds``, a list."""

    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "clip_seconds": [row["seconds"] for row in features],
            "input_features": self.stacked(features),
            "frames": np.array([row["input_features"].shape[-1] for row in features], dtype=np.int64),
        }


class SpokenSteps:
    """`training.runtime.token_search.Steps` of the graph of a language model.

    sound: embeddings float32 ``[rows, groups, width]``, which stand at the placeholders of the first ids. padding: ids in front
    of each row ``[rows]``.
    """

    def __init__(
        self, session: Session, prompt: SpokenPrompt, sound: np.ndarray, padding: np.ndarray
    ) -> None:
        self.session, self.prompt, self.sound, self.padding = session, prompt, sound, padding
        self.own = empty_caches(session, len(sound))
        self.outputs = ["logits", *(name.replace(PAST, LONGER, 1) for name in self.own)]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        inputs = {
            "ids": ids,
            "sound": placed(self.sound, ids, self.prompt.placeholder),
            "padding": self.padding,
            "read": np.full((len(ids), 1), ids.shape[1] - 1, dtype=np.int64),
        }
        logits, *longer = self.session.some(self.outputs, {**inputs, **self.own})
        self.own = dict(zip(self.own, longer, strict=True))
        last: np.ndarray = logits[:, 0]
        return last

    def keep(self, rows: np.ndarray) -> None:
        self.own = {name: part[rows] for name, part in self.own.items()}
        self.sound, self.padding = self.sound[rows], self.padding[rows]


@dataclass(frozen=True)
class SpokenLanguageModel:
    """The graphs of a folder. aligner: None where the model gives no times."""

    encoder: Session
    decoder: Session
    aligner: Session | None

    def encode(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Encoder states float32 ``[clips, frames, width]`` and embeddings of the sound ``[clips, groups, width]``."""
        states, sound = self.encoder(log_mels=batch["input_features"], frames=batch["frames"])
        return states[:, : encoder_frames(int(batch["frames"].max()))], sound


@dataclass(frozen=True, kw_only=True)
class ExportedLanguageModel(ExportedModel):
    """An exported speech encoder with a language model; ``model`` is its `SpokenLanguageModel`."""

    detokenizer: Detokenizer
    prompt: SpokenPrompt

    @classmethod
    def of(cls, exported: Exported) -> Self:
        """The model of a folder."""
        description, folder = exported.description, exported.folder
        prompt, settings, context = description.spoken_prompt, description.log_mels, description.context
        assert prompt is not None and settings is not None and context is not None
        log_mels = OnnxLogMels(settings, Session(folder / "features.onnx"))
        detokenizer = Detokenizer(exported.tokenizer)
        return cls(
            model=SpokenLanguageModel(
                Session(folder / "encoder.onnx"),
                Session(folder / "decoder.onnx"),
                Session(folder / "aligner.onnx") if prompt.aligner else None,
            ),
            tasks=description.tasks,
            languages=description.languages,
            sample_rate=description.sample_rate,
            encode=SpokenEncode(log_mels, prompt),
            collate=SpokenCollator(context=context.context, margin=context.margin),
            aligner=PointedWords(prompt, detokenizer.tokenizer) if prompt.aligner else None,
            description=description,
            detokenizer=detokenizer,
            prompt=prompt,
        )

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **generation: Any
    ) -> Mapping[str, np.ndarray]:
        """Behind each row's own prompt, which stands at the right end. Rows are filled up with the end token."""
        chosen: SpokenLanguageModel = self.model if model is None else model
        _, sound = chosen.encode(batch) if states is None else states
        prompts, padding = self._prompts(batch["frames"])
        assert self.positions is not None
        new = new_tokens(generation.get("max_new_tokens"), self.positions, prompts.shape[1])
        search = Search(beams=generation.get("num_beams") or 1, new=new)
        written = write(
            SpokenSteps(chosen.decoder, self.prompt, sound, padding),
            prompts,
            Rules(self.prompt.end, self.prompt.suppress),
            search,
        )
        return {TRANSCRIBE: rectangle([row.ids for row in written], self.prompt.end)}

    def _prompts(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 ``[clips, length]``, and how many in front of each row are padding ``[clips]``."""
        groups = groups_of(frames, self.prompt.stack)
        longest = int(groups.max())
        middle = [[self.prompt.placeholder] * int(n) for n in groups]
        rows = [
            [*[self.prompt.padding] * (longest - len(sound)), *self.prompt.before, *sound, *self.prompt.after]
            for sound in middle
        ]
        return np.array(rows, dtype=np.int64), longest - groups

    def decode(
        self, batch: Batch, options: DecodeOptions, *, model: Any = None, states: Any = None
    ) -> dict[str, list[Decoded]]:
        """One encoding for text and times."""
        chosen: SpokenLanguageModel = self.model if model is None else model
        known = chosen.encode(batch) if states is None else states
        return super().decode(batch, options, model=chosen, states=known)

    def text(self, ids: Sequence[int]) -> str:
        return self.detokenizer(ids)
