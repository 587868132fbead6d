"""The scores of an evaluation as a person reads them in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.metric import BLEU, CER, CHRF, WER, Metric
from training.evaluation.summary import score_text, summarize

if TYPE_CHECKING:
    import pandas

    from training.data.ledger import DropLedger

_EDITS = ("substitutions", "deletions", "insertions")
_NUMBERS = ("changed", "audio_end")
"""Columns that are numbers or empty."""


@dataclass(frozen=True)
class Score:
    """One score in percent.

    Attributes:
        value: NaN where it is undefined (no words in the references).
        interval: bounds of the 95 % bootstrap interval, low and high; NaN where there is none.
        rows: texts that were scored.
    """

    value: float
    interval: tuple[float, float]
    rows: int

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Score:
        """From an entry of ``scores`` in ``{run}_metrics.json``."""
        value, low, high = (math.nan if found.get(key) is None else float(found[key]) for key in _BOUNDS)
        return cls(value, (low, high), int(found["rows"]))

    def __str__(self) -> str:
        value, (low, high) = self.value, self.interval
        found = {
            key: None if math.isnan(one) else one
            for key, one in zip(_BOUNDS, (value, low, high), strict=True)
        }
        return score_text(found)


_BOUNDS = ("value", "low", "high")


@dataclass(frozen=True, repr=False)
class Scores:
    """The result of an evaluation. ``print(scores)`` shows the main figures.

    Attributes:
        report: all figures, as ``{run}_metrics.json`` holds them.
        predictions: a row for each scored text, as ``{run}_predictions.csv`` holds them; `table` is the same for pandas.
        dropped: the ledger of the utterances that are not scored, and why; ``len`` counts them.
        swap_test: what the swap test found, where it was asked for.
        written: files that were written.
    """

    report: Mapping[str, Any]
    predictions: Sequence[Mapping[str, Any]]
    dropped: DropLedger
    swap_test: Mapping[str, Any] | None = None
    written: tuple[Path, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each scored text, made at the first access.

        Columns, among others: ``id``, ``task``, ``speaker``, ``reference``, ``hypothesis`` (as written),
        ``normalised_reference``, ``normalised_hypothesis`` (as scored), ``words`` (of the reference), ``edits`` (sum of
        ``substitutions``, ``deletions``, ``insertions``), ``character_errors``, ``seconds`` (of generation),
        ``duration`` (of the audio, seconds), ``audio_path``.
        """
        if "table" not in self._cache:
            self._cache["table"] = _table(self.predictions)
        return self._cache["table"]

    @property
    def wer(self) -> Score:
        """Word error rate of the transcripts, in percent of the words of the references."""
        return self._score(WER)

    @property
    def cer(self) -> Score:
        """Character error rate of the transcripts, in percent."""
        return self._score(CER)

    @property
    def bleu(self) -> Score:
        """BLEU of the translations, 0 to 100."""
        return self._score(BLEU)

    @property
    def chrf(self) -> Score:
        """chrF of the translations, 0 to 100."""
        return self._score(CHRF)

    @property
    def too_many_dropped(self) -> bool:
        """Whether more utterances are in ``dropped`` than ``data.max_dropped_share`` of the run allows."""
        return bool(self.report["dropped"]["too_many"])

    def _score(self, metric: Metric) -> Score:
        found = self.report["scores"]
        if metric.name not in found:
            raise AttributeError(
                f"there is no {metric.label}: no text of its task was scored; there are {', '.join(found)}"
            )
        return Score.of(found[metric.name])

    def __str__(self) -> str:
        return summarize(self.report)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {Score.of(score)}" for name, score in self.report["scores"].items())
        return f"Scores({found})"


def _table(predictions: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    import pandas

    table = pandas.DataFrame([dict(row) for row in predictions])
    for name in _NUMBERS:
        table[name] = pandas.to_numeric(table[name], errors="coerce")
    table.insert(list(table.columns).index("words") + 1, "edits", table[list(_EDITS)].sum(axis=1))
    return table
