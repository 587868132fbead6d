"""Token ids of an exported model whose rows were moved."""

from __future__ import annotations

import numpy as np

from training.models.export_parts import MovedIds


def order_of(moved: MovedIds, vocabulary: int) -> np.ndarray:
    """Tokenizer id of each row of the exported model: int64 ``[vocabulary]``; its ``argsort`` is the row of each id."""
    there = [i for i in range(vocabulary) if i not in set(moved.ids)]
    place = there.index(moved.before) if moved.ids else 0
    return np.array([*there[:place], *moved.ids, *there[place:]], dtype=np.int64)
