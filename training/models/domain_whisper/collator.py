"""Whisper's utterances and batches with a domain token in the prompt: which population speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from training.data.example import Example
from training.models.architecture import AS_IT_IS, AUTO, NONE, SWAP
from training.models.common.targets import IGNORED
from training.models.whisper.collator import WhisperCollator, WhisperEncode

PLACE = 2
"""Place of the domain token among the labels: after language and task."""


@dataclass(frozen=True)
class DomainEncode(WhisperEncode):
    """`WhisperEncode` whose prompt is language, task, domain, ``<|notimestamps|>``.

    domains: token id of each domain. domain: of utterances that name none. asked: one of `ASKED`, or a domain
    that all utterances get. open_id: placeholder token, which the predicted domain replaces.
    Raises ``ValueError`` also for an utterance of no domain or of an unknown one.
    """

    domains: Mapping[str, int] = field(default_factory=dict)
    domain: str | None = None
    asked: str = AS_IT_IS
    open_id: int = 0

    def __call__(self, example: Example, waveform: Any) -> dict[str, Any]:
        return {**super().__call__(example, waveform), "domain": self.wanted(example)}

    def prompt(self, example: Example, task: str) -> list[int]:
        """As `WhisperEncode`'s, with the domain's token in third place (not with `NONE`)."""
        language, kind, *end = super().prompt(example, task)
        domain = self.wanted(example)
        if domain == NONE:
            return [language, kind, *end]
        return [language, kind, self.open_id if domain == AUTO else self.domains[domain], *end]

    def wanted(self, example: Example) -> str:
        """A domain, `AUTO` or `NONE`."""
        if self.asked in (AUTO, NONE):
            return self.asked
        if self.asked in self.domains:
            return self.asked
        domain = example.domain or self.domain
        if domain is None:
            raise ValueError("names no domain; give it one, or set model.domain")
        if domain not in self.domains:
            raise ValueError(f"domain {domain!r} is none of model.domains ({', '.join(self.domains)})")
        names = list(self.domains)
        return names[(names.index(domain) + 1) % len(names)] if self.asked == SWAP else domain


@dataclass(frozen=True, kw_only=True)
class DataCollatorSpeechSeq2SeqDomain(WhisperCollator):
    """`WhisperCollator` that trains the model to predict the domain, and may weigh the domains.

    supervise: the domain token is a label too, so that the model learns to predict it. weights: factor of
    the loss of a domain's utterances, 1 where none is named; ``weights [batch]`` is in the batch where any is.
    """

    supervise: bool = True
    weights: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(features)
        if self.supervise:
            given = [row["domain"] not in (AUTO, NONE) for row in features]
            taught = (batch["labels"] != IGNORED).any(dim=-1) & torch.tensor(given)[:, None]
            before = [[len(row.get("before", {}).get(task, ())) for task in self.tasks] for row in features]
            places = torch.tensor(before)[:, :, None] + PLACE
            tokens = batch["decoder_input_ids"].gather(-1, places + 1)
            batch["labels"].scatter_(-1, places, torch.where(taught[:, :, None], tokens, IGNORED))
        if self.weights:
            batch["weights"] = torch.tensor([self.weights.get(row["domain"], 1.0) for row in features])
        return batch
