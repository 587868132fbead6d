"""Token ids of an exported model whose rows were moved."""

from __future__ import annotations

import numpy as np

from training.models.export_parts import MovedIds


def order_of(moved: MovedIds, vocabulary: int) -> np.ndarray:
    """Tokenizer id of each row of the exported model: int64 ``[rows]``, see `MovedIds`."""
    if not moved.ids:
        return np.arange(vocabulary)
    rest = np.setdiff1d(np.arange(moved.before + 1, vocabulary), moved.ids)
    first = np.setdiff1d(np.arange(moved.before), moved.ids)
    return np.concatenate((first, moved.ids, [moved.before], moved.ids, rest)).astype(np.int64)


def rows_of(order: np.ndarray, vocabulary: int) -> np.ndarray:
    """The first row of each tokenizer id: int64 ``[vocabulary]``."""
    rows = np.empty(vocabulary, dtype=np.int64)
    rows[order[::-1]] = np.arange(len(order))[::-1]
    return rows


def copies_in(order: np.ndarray, vocabulary: int) -> np.ndarray:
    """The rows that come a second time, int64: nothing is written by them, and they have no part in a probability."""
    return np.flatnonzero(rows_of(order, vocabulary)[order] != np.arange(len(order)))
