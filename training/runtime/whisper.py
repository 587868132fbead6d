"""An exported Whisper as a model that decodes: log-mels and prompts in numpy, an engine for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from training.base.errors import UserError
from training.models.abilities import CrossAttention, Domains, LanguageDetection
from training.models.architecture import Decoded, DecodeOptions, new_tokens
from training.models.batch import Batch
from training.models.safeguards import Search
from training.runtime.folder import Exported
from training.runtime.model import ExportedModel, rectangle
from training.runtime.prompts import PromptedCollator, PromptedEncode
from training.runtime.text import Detokenizer
from training.runtime.whisper_abilities import (
    DetectLanguage,
    Engine,
    ExportedReader,
    ExportedScored,
    PredictDomain,
    head_frames,
)


class CutShort(UserError):
    """An engine stopped before the bound that it was given, without an end token: a short text is never returned."""


@dataclass(frozen=True, kw_only=True)
class ExportedWhisper(ExportedModel):
    """An exported Whisper; ``model`` is its `Engine`."""

    detokenizer: Detokenizer

    @classmethod
    def of(cls, exported: Exported, engine: Engine, log_mels: Any) -> Self:
        """The model of a folder; ``log_mels``: as transformers' feature extractor is called."""
        description = exported.description
        prompts, context = description.prompts, description.context
        assert prompts is not None and context is not None
        tasks, languages = description.tasks, description.languages
        domains = Domains(
            names=tuple(prompts.domains),
            default=prompts.domain,
            predictable=prompts.domain_predictable,
            predict=PredictDomain(dict(prompts.domains)),
        )
        detokenizer = Detokenizer(exported.tokenizer)
        detection = prompts.detection
        return cls(
            model=engine,
            tasks=tasks,
            languages=languages,
            sample_rate=description.sample_rate,
            encode=PromptedEncode(log_mels, prompts, tasks, languages[0]),
            collate=PromptedCollator(
                context=context.context, margin=context.margin, tasks=tasks, start_id=prompts.start
            ),
            domains=domains if prompts.domains else None,
            attention=CrossAttention(
                ExportedReader(description, detokenizer), head_frames(description, exported.folder)
            ),
            language_detection=LanguageDetection(
                languages=detection.languages, detect=DetectLanguage(prompts)
            )
            if detection is not None
            else None,
            scored=ExportedScored(description, detokenizer),
            description=description,
            detokenizer=detokenizer,
        )

    def with_tasks(self, tasks: tuple[str, ...]) -> Self:
        """The same for these tasks; the description says which rows of a batch's prompts are whose."""
        chosen = super().with_tasks(tasks)
        description = self.description.model_copy(update={"tasks": tasks})
        assert self.attention is not None
        reader = ExportedReader(description, self.detokenizer)
        return replace(chosen, description=description, attention=replace(self.attention, reader=reader))

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **generation: Any
    ) -> Mapping[str, np.ndarray]:
        """One encoding for all tasks. Rows are filled up with the end token."""
        engine: Engine = self.model if model is None else model
        if states is None:
            states = engine.encode(batch["input_features"])
        prompts = batch["prompts"]
        assert self.positions is not None
        new = new_tokens(generation.get("max_new_tokens"), self.positions, prompts.shape[-1])
        search = Search(beams=generation.get("num_beams") or 1, new=new)
        end = self.description.end
        assert end is not None
        rows = engine.generate(states, prompts.reshape(-1, prompts.shape[-1]), search)
        return {
            task: rectangle([row.ids for row in rows[place :: len(self.tasks)]], end)
            for place, task in enumerate(self.tasks)
        }

    def decode(
        self, batch: Batch, options: DecodeOptions, *, model: Any = None, states: Any = None
    ) -> dict[str, list[Decoded]]:
        """One encoding for the texts and for the times of their words."""
        if states is None and self.aligner is not None:
            engine: Engine = self.model if model is None else model
            states = engine.encode(batch["input_features"])
        return super().decode(batch, options, model=model, states=states)

    def text(self, ids: Sequence[int]) -> str:
        return self.detokenizer(ids)
