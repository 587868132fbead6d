"""The base of every ``model:`` block. Does not import torch, so that configurations load fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from training.data.example import TASKS
from training.data.options import Block, Contradiction


class ModelOptions(Block):
    """Base of an architecture's options. A subclass has the fields ``type`` and ``task``, and a docstring under each field."""

    stock_types: ClassVar[tuple[str, ...]] = ()
    """``model_type`` of the stock transformers folders that this architecture loads."""
    weight_keys: ClassVar[tuple[str, ...]] = ()
    """Fields that may name pretrained weights: a hub id or a folder."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of the labels' second axis."""
        task = str(getattr(self, "task", "both"))
        return TASKS if task == "both" else (task,)

    @property
    def weights(self) -> dict[str, str]:
        """Key → hub id or folder of the pretrained weights that the run begins with."""
        named = {key: getattr(self, key) for key in self.weight_keys}
        return {key: value for key, value in named.items() if isinstance(value, str) and value}

    @property
    def full_share(self) -> float:
        """Share of the clips of training that are padded to the model's whole context although others are not."""
        return 0.0

    @property
    def learns_vocabulary(self) -> bool:
        """Whether the tokenizer is made from the training texts."""
        return False

    @property
    def scored_by_word_times(self) -> bool:
        """Whether training is judged by the times of given words, and writes no text."""
        return False

    @property
    def can_shrink_weights(self) -> bool:
        """Whether one of the `memory_savings` makes the weights themselves smaller."""
        return False

    def memory_savings(self) -> Iterator[tuple[str, str]]:
        """Overrides (``key=value``) that save memory, and what each costs."""
        yield from ()

    def check_config(self, config: Any) -> list[Contradiction]:
        """Contradictions between these options and the other blocks of the configuration ``config``."""
        return []

    @classmethod
    def from_folder(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        """Options for a folder without a ``config.yaml``.

        Args:
            folder: the model's folder.
            settings: what its ``config.json`` remembers under ``polyvox``; empty for a stock folder.
        """
        known = {key: value for key, value in settings.items() if key in cls.model_fields}
        return cls(**{**cls.stock_options(folder), **known})

    @classmethod
    def stock_options(cls, folder: Path) -> dict[str, Any]:
        """What `from_folder` takes where the folder itself does not say it, such as where the weights are."""
        return {}
