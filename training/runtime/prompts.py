"""From an utterance to a batch for an exported Whisper: log-mels and prompts, numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.data.example import Example
from training.models.architecture import AS_IT_IS, AUTO, NONE, SWAP, BatchCollator, UtteranceEncoder
from training.models.common.log_mels import Context, check_length, log_mel
from training.models.export_parts import Prompts

OPEN, OPEN_LANGUAGE = -1, -2
"""In the place of the token of the domain, of the language: it is to be predicted."""


@dataclass(frozen=True)
class PromptedEncode(UtteranceEncoder):
    """One utterance to features: ``input_features`` float32 ``[mels, frames]`` and a prompt of token ids per task.

    log_mels: as transformers' feature extractor is called. language: of utterances that name none. asked: see `training.models.domain_whisper.collator.DomainEncode`.
    Raises ``ValueError`` for a language or a domain without a token, and for a clip over 30 s.
    """

    log_mels: Any
    prompts: Prompts
    tasks: tuple[str, ...]
    language: str
    asked: str = AS_IT_IS

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        prompts = {task: self.prompt(example, task) for task in self.tasks}
        return {
            "id": example.id,
            "seconds": len(waveform) / self.log_mels.sampling_rate,
            "input_features": log_mel(self.log_mels, waveform),
            "labels": prompts,
            "prompt": {task: len(ids) for task, ids in prompts.items()},
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound would raise."""
        check_length(self.log_mels, round(seconds * self.log_mels.sampling_rate))
        for task in self.tasks:
            self.prompt(example, task)

    def prompt(self, example: Example, task: str) -> list[int]:
        """The token ids between the start token and the text."""
        language = example.language or self.language
        head = [self._language(language), self.prompts.tasks[task]]
        return [*head, *self._domain(example), self.prompts.no_timestamps]

    def _language(self, language: str) -> int:
        if language == AUTO:
            if self.prompts.detection is None:
                raise ValueError(
                    "names no language, and this model does not detect it: --language CODE says it"
                )
            return OPEN_LANGUAGE
        if language not in self.prompts.languages:
            raise ValueError(f"language {language!r} has no token in this tokenizer")
        return self.prompts.languages[language]

    def _domain(self, example: Example) -> list[int]:
        domains = self.prompts.domains
        if not domains or self.asked == NONE:
            return []
        if self.asked == AUTO:
            return [OPEN]
        domain = self.asked if self.asked in domains else example.domain or self.prompts.domain
        if domain is None:
            raise ValueError("names no domain; give it one, or export a model with model.domain")
        if domain not in domains:
            raise ValueError(f"domain {domain!r} is none of model.domains ({', '.join(domains)})")
        names = list(domains)
        other = names[(names.index(domain) + 1) % len(names)]
        return [domains[other if self.asked == SWAP else domain]]


@dataclass(frozen=True, kw_only=True)
class PromptedCollator(Context, BatchCollator):
    """Batch of clips: ``input_features`` float32 ``[batch, mels, frames]``, ``prompts`` int64 ``[batch, task, length]``
    with the start token."""

    tasks: tuple[str, ...]
    start_id: int

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        seconds = [row["seconds"] for row in features]
        prompts = [[[self.start_id, *row["labels"][task]] for task in self.tasks] for row in features]
        return {
            "ids": [row["id"] for row in features],
            "clip_seconds": seconds,
            "seconds": sum(seconds),
            "input_features": self.stacked(features),
            "prompts": np.array(prompts, dtype=np.int64),
        }
