"""The embeddings of a clip's sound among the ids of a prompt."""

from __future__ import annotations

import numpy as np


def placed(sound: np.ndarray, ids: np.ndarray, placeholder: int) -> np.ndarray:
    """The sound where its placeholders are, zeros elsewhere.

    Args:
        sound: embeddings float32 ``[rows, groups, width]``.
        ids: int64 ``[rows, length]``; the placeholders of a row are as many as its clip has groups, or none.
        placeholder: id.

    Returns:
        float32 ``[rows, length, width]``.
    """
    there = ids == placeholder
    found = np.zeros((*ids.shape, sound.shape[-1]), dtype=np.float32)
    if there.any():
        rows, _ = np.nonzero(there)
        found[there] = sound[rows, there.cumsum(axis=1)[there] - 1]
    return found
