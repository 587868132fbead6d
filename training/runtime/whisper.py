"""An exported Whisper as a model that decodes: log-mels and prompts in numpy, an engine for the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from training.base.errors import UserError
from training.models.abilities import DomainPrediction, Domains
from training.models.architecture import new_tokens
from training.models.batch import Batch
from training.runtime.folder import Exported
from training.runtime.model import ExportedModel
from training.runtime.prompts import OPEN, PromptedCollator, PromptedEncode
from training.runtime.text import Detokenizer


class CutShort(UserError):
    """An engine stopped before the bound that it was given, without an end token: a short text is never returned."""


class Engine(Protocol):
    """Runs the network of an exported Whisper."""

    def encode(self, log_mels: np.ndarray) -> Any:
        """Encoder states of log-mels float32 ``[batch, mels, frames]``, in the engine's own form."""

    def generate(self, states: Any, prompts: np.ndarray, new: int, beams: int) -> list[list[int]]:
        """Ids that follow each prompt, the end token left out.

        Args:
            states: of `encode`.
            prompts: int64 ``[batch, length]``.
            new: the most ids of a row.
            beams: 1 is greedy.

        Raises:
            CutShort: it stopped before ``new`` ids without an end token.
        """

    def likeliest(self, states: Any, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """The likeliest of the ids ``among`` after each prompt int64 ``[batch, length]``."""


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
            description=description,
            detokenizer=Detokenizer(exported.tokenizer),
        )

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
        beams = generation.get("num_beams") or 1
        return {
            task: self._rectangle(engine.generate(states, prompts[:, place], new, beams))
            for place, task in enumerate(self.tasks)
        }

    def _rectangle(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        assert self.description.prompts is not None
        filled = np.full((len(rows), max(map(len, rows)) + 1), self.description.prompts.end, dtype=np.int64)
        for place, row in enumerate(rows):
            filled[place, : len(row)] = row
        return filled

    def text(self, ids: Sequence[int]) -> str:
        return self.detokenizer(ids)


@dataclass(frozen=True)
class PredictDomain:
    """Completes prompts that leave the domain open, see `training.models.domain_whisper.build.PredictDomain`."""

    domains: Mapping[str, int]

    def __call__(self, model: Engine, batch: Batch, states: Any = None) -> DomainPrediction:
        prompts = batch["prompts"]
        open_ = (prompts[:, 0] == OPEN).any(axis=-1)
        if not open_.any():
            return DomainPrediction(batch, states, [None] * len(prompts))
        if states is None:
            states = model.encode(batch["input_features"])
        place = int((prompts[open_][0, 0] == OPEN).argmax())
        predicted = model.likeliest(states, prompts[:, 0, :place], list(self.domains.values()))
        completed = np.where(prompts == OPEN, np.array(predicted)[:, None, None], prompts)
        names = list(_names(self.domains, predicted, open_))
        return DomainPrediction({**batch, "prompts": completed}, states, names)


def _names(domains: Mapping[str, int], predicted: Sequence[int], open_: np.ndarray) -> Iterator[str | None]:
    by_id = {i: name for name, i in domains.items()}
    for i, asked in zip(predicted, open_.tolist(), strict=True):
        yield by_id[i] if asked else None
