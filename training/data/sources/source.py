"""The interface of a source of utterances: what a ``data:`` block names, and everything that reads it asks.

The sources of this folder are in `training.data.sources.configured`, that of the registry is
`training.registry.data_source`. ``Data.source`` (`training.config.blocks`) makes the one that a configuration names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from training.data.options import Contradiction

if TYPE_CHECKING:
    from training.data.sampler import DurationBatchSampler, Neighbours

Split = Literal["train", "dev", "test"]
PARTS: tuple[Split, ...] = ("train", "dev", "test")
KEYS = ("registry", "manifest", "dataset", "shards", "librispeech")
"""Keys of a ``data:`` block that name a source in place of the tables ``train``, ``dev`` and ``test``."""


def named(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of `KEYS` that are set in a ``data:`` block; none: the tables are read."""
    return tuple(key for key in KEYS if data.get(key) is not None)


class Missing(NamedTuple):
    """What a split needs and is not there.

    path: the file or folder; None where the configuration names none.
    maker: the command that makes it.
    """

    path: Path | None
    maker: str


class Source(ABC):
    """Where the utterances of a run come from. Subclasses are frozen dataclasses that import nothing heavy.

    kind: ``table``, ``dataset``, ``shards``, ``librispeech`` or ``registry``.
    key: the key of the ``data:`` block that names it; "" for the tables ``train``, ``dev`` and ``test``.
    batches_by_length: whether batches are made of the lengths of the utterances alone.
    """

    kind: ClassVar[str]
    key: ClassVar[str] = ""
    batches_by_length: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def of(cls, data: Any) -> Self:
        """The source that the ``data:`` block describes (`training.config.blocks.Data`)."""

    @abstractmethod
    def open(self, split: Split) -> Any:
        """The rows of a split (`training.data.checks.Rows`); None where the configuration names none.

        Raises:
            training.base.errors.UserError: they are not there, or cannot be read.
        """

    @abstractmethod
    def describe(self, split: Split) -> str:
        """Where a split comes from, in a few words for a reader."""

    def missing(self, split: Split) -> Missing | None:
        """What of a split is not there yet; None where all is there, and where only opening can tell."""
        return None

    def check(self, scored: bool) -> list[Contradiction]:
        """Contradictions of its settings, nothing opened.

        Args:
            scored: whether the dev split is scored during training.
        """
        return []

    def manifest(self, split: Split, rows: Any) -> Path | None:
        """The name under which a report lists the rows that `open` gave; None where they have none."""
        return rows.path

    def batches(self, rows: Any, neighbours: Neighbours | None = None) -> Callable[..., DurationBatchSampler]:
        """What makes the sampler of the training rows, given limits of the batches and rank of the process.

        Args:
            rows: what `open` gave, less the rows that are not used.
            neighbours: which clips of one recording become one utterance; only where ``batches_by_length``.
        """
        from training.data.sampler import DurationBatchSampler, NeighbourBatches

        if neighbours is not None:
            return partial(NeighbourBatches, rows.durations, joining=neighbours)
        return partial(DurationBatchSampler, rows.durations)

    @property
    def database(self) -> str | None:
        """The registry that takes figures and predictions of runs on this source; None without one."""
        return None


def no_dev(named: str, where: tuple[str, ...]) -> Contradiction:
    """The dev split is to be scored, and there is none.

    Args:
        named: the key that would name it, and what it is.
        where: the path of that key.
    """
    message = f"there is no dev split to score ({named}); set it to no"
    return ("training", "eval_strategy"), message, (where,)
