"""What a run has stored, as the rules look at it: its records, its scores, its hypotheses."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from training.data.example import TRANSCRIBE
from training.data.letters import script_of
from training.data.metric import CER, WER
from training.evaluation.breakdown import DURATIONS

LAST_SHARE = 0.2
"""Share of the records at each end whose mean loss stands for the beginning and the end of a training."""


@dataclass(frozen=True)
class Row:
    """One transcribed utterance: normalised texts, the words of the reference, and the share of its characters that are
    wrong (which a space in another place does not change)."""

    id: str
    reference: str
    hypothesis: str
    words: int
    error_rate: float
    loops: bool
    speaker: str = ""
    duration: float = 0.0

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Row:
        """From a row of a predictions table."""
        return cls(
            id=str(line["id"]),
            reference=str(line.get("normalised_reference") or ""),
            hypothesis=str(line.get("normalised_hypothesis") or ""),
            words=int(line.get("words") or 0),
            error_rate=int(line.get("character_errors") or 0) / max(int(line.get("characters") or 0), 1),
            loops=str(line.get("loops") or "0") == "1",
            speaker=str(line.get("speaker") or ""),
            duration=float(line.get("duration") or 0.0),
        )


@dataclass(frozen=True)
class Evidence:
    """A run, and one evaluation of it where there is one.

    Attributes:
        folder: of the run, for the commands.
        config: its configuration as a mapping; empty for a model that is no run of ours.
        records: what it logged while it trained, in order.
        report: the content of ``{name}_metrics.json``; empty without an evaluation.
        predictions: rows of ``{name}_predictions.csv``.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()

    @property
    def model_type(self) -> str:
        """``model.type``."""
        named = (self.report.get("meta") or {}).get("model_type")
        return str(named or (self.config.get("model") or {}).get("type") or "")

    @property
    def is_ctc(self) -> bool:
        """Whether it is a CTC model."""
        return self.model_type == "ctc"

    @property
    def pretrained(self) -> bool:
        """Whether the run began with pretrained weights."""
        model = self.config.get("model") or {}
        return any(
            isinstance(model.get(key), str)
            for key in ("name", "encoder_name", "pretrained", "decoder", "llm")
        )

    @cached_property
    def rows(self) -> list[Row]:
        """Transcribed utterances with a reference."""
        lines = (line for line in self.predictions if line.get("task", TRANSCRIBE) == TRANSCRIBE)
        return [row for row in map(Row.of, lines) if row.words]

    @cached_property
    def wer(self) -> float | None:
        """In percent: of the evaluation, else of the last one during training."""
        score = (self.report.get("scores") or {}).get(WER.name)
        if score:
            return None if score.get("value") is None else float(score["value"])
        return self.last(WER.logged)

    @cached_property
    def cer(self) -> float | None:
        """The same for characters."""
        score = (self.report.get("scores") or {}).get(CER.name)
        if score:
            return None if score.get("value") is None else float(score["value"])
        return self.last(CER.logged)

    def curve(self, name: str) -> list[float]:
        """The logged values of one name, in order."""
        return [float(one[name]) for one in self.records if isinstance(one.get(name), int | float)]

    def last(self, name: str) -> float | None:
        """The last logged value; None where there is none."""
        found = self.curve(name)
        return found[-1] if found else None

    @cached_property
    def loss(self) -> tuple[float, float] | None:
        """Mean training loss at the beginning and at the end; None where too few were logged."""
        found = self.curve("loss")
        if len(found) < 4:
            return None
        count = max(1, round(LAST_SHARE * len(found)))
        return fmean(found[:count]), fmean(found[-count:])

    @property
    def median_error_rate(self) -> float:
        """Of the utterances."""
        return median(row.error_rate for row in self.rows) if self.rows else 1.0

    def median_of_its_like(self, row: Row) -> float:
        """The larger median error rate of two groups: the utterances of its speaker, and those of its length."""
        own = band(row.duration)
        groups = (
            [one.error_rate for one in self.rows if row.speaker and one.speaker == row.speaker],
            [one.error_rate for one in self.rows if band(one.duration) == own],
        )
        return max(median(group) for group in groups if group)

    @property
    def steps(self) -> int:
        """Optimiser steps that were logged."""
        return max((int(one.get("step") or 0) for one in self.records), default=0)


def band(seconds: float) -> int:
    """Number of the group of clips of similar length (`training.evaluation.breakdown.by_duration`)."""
    return bisect(DURATIONS, seconds)


def scripts(text: str) -> dict[str, int]:
    """Letters of each script."""
    found: dict[str, int] = {}
    for letter in text:
        if script := script_of(letter):
            found[script] = found.get(script, 0) + 1
    return found
