"""What a configuration lets training practise for long recordings: joined neighbours, times, the text before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.config.schema import Config
from training.data.long_form import LongForm
from training.data.manifest import TEXT_COLUMNS
from training.data.recordings import COLUMNS, before, sequences
from training.data.sampler import Neighbours
from training.models.abilities import LongFormTraining
from training.models.architecture import Architecture

MOST_SECONDS = 30.0
"""Whisper's window."""
NO_RECORDINGS = (
    "the rows do not say which recording a clip is part of (one of the columns "
    f"{', '.join(COLUMNS)}, or start and end within one file)"
)
logger = logging.getLogger(__name__)


def neighbours_to_join(
    config: Config, architecture: Architecture, rows: Any, *, counted: bool = True
) -> Neighbours | None:
    """Which neighbours of one recording become one utterance (``augmentation.join`` of a model with a prompt).

    Args:
        config: checked.
        architecture: built; None is returned for a CTC model, which joins any clips of a batch.
        rows: the training rows that are used.
        counted: count label tokens; False where no tokenizer is here (a dry run).

    Returns:
        None where nothing is joined; a warning says so where nothing can be.

    Raises:
        UserError: shards, whose order is that of the disk, and ``join.after_epochs``.
    """
    settings, ability = config.augmentation.join, architecture.long_form
    if ability is None or architecture.frames is not None:
        return None
    if not (config.augmentation.enabled and settings.prob):
        return None
    _check(config)
    found = sequences(rows)
    if not any(len(one) > 1 for one in found):
        logger.warning(
            f"augmentation.join: {NO_RECORDINGS}, or each recording has one clip; no clips are joined"
        )
        return None
    changes = config.augmentation
    return Neighbours(
        prob=settings.prob,
        most=settings.most,
        longest=min(MOST_SECONDS, config.audio.max_length_seconds),
        seed=config.training.seed,
        sequences=found,
        tokens=label_tokens(architecture.tasks, ability, rows) if counted else np.zeros(len(rows), np.int64),
        most_tokens=ability.most_labels,
        pause=settings.pause,
        cut=ability.timestamps > 0 and ability.cut > 0,
        stretch=1 / changes.speed.low if changes.speed.prob else 1.0,
        edges=2 * changes.shift.seconds if changes.shift.prob else 0.0,
    )


def draws(config: Config, architecture: Architecture, rows: Any) -> LongForm | None:
    """Which training samples carry times and previous text; None where none does."""
    ability = architecture.long_form
    joins = _joins(config, architecture)
    if ability is None or not (ability.timestamps or ability.previous_text or joins):
        return None
    found = sequences(rows) if ability.previous_text or joins else []
    if ability.previous_text and not any(len(one) > 1 for one in found):
        logger.warning(
            f"model.previous_text: {NO_RECORDINGS}, or each recording has one clip; no prompt has the text before"
        )
    return LongForm(
        ability.timestamps, ability.previous_text, config.training.seed, before(len(rows), found), ability.cut
    )


def label_tokens(tasks: Sequence[str], ability: LongFormTraining, rows: Any) -> np.ndarray:
    """Tokens of each row's longest text among the tasks, int64 ``[rows]``."""
    found = np.zeros(len(rows), dtype=np.int64)
    for task in tasks:
        if TEXT_COLUMNS[task] in rows.column_names:
            texts = [cell or "" for cell in rows.column(TEXT_COLUMNS[task])]
            found = np.maximum(found, np.array(ability.label_tokens(texts), dtype=np.int64))
    return found


def _joins(config: Config, architecture: Architecture) -> bool:
    joins = config.augmentation.enabled and config.augmentation.join.prob > 0
    return joins and architecture.frames is None


def _check(config: Config) -> None:
    if not config.data.source.batches_by_length:
        raise UserError(
            "augmentation.join.prob: neighbours of a recording cannot be joined over data.shards, which are read in their own "
            "order; set it to 0, or train from a manifest"
        )
    if config.augmentation.join.after_epochs:
        raise UserError(
            "augmentation.join.after_epochs: this model joins from the start (every epoch has as many batches); set it to 0"
        )
