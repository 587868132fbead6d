"""The graph ``decoder`` of a folder in ONNX Runtime: greedy search with flat caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.runtime.onnx_session import Session


@dataclass(frozen=True)
class CachedDecoder:
    """Greedy search with a graph of `training.models.common.decoder_graph`.

    end: ends a text. suppress: ids that are never written; suppress_first: not as the first one.
    """

    session: Session
    end: int
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()

    def greedy(self, prompts: np.ndarray, sound: Sequence[np.ndarray], new: int) -> list[list[int]]:
        """Ids that follow each prompt, the end token left out.

        Args:
            prompts: int64 ``[rows, length]``; the rows of a clip stand together.
            sound: the inputs of the graph that come from the encoder: the keys and values of cross-attention last.
            new: the most ids of a row.
        """
        past = [name for name in self.session.inputs if name.startswith("past_")]
        rest = [name for name in self.session.inputs if name not in ("ids", *past)]
        fixed = dict(zip(rest, sound, strict=True))
        rows: list[list[int]] = [[] for _ in prompts]
        open_ = np.ones(len(prompts), dtype=bool)
        own, ids = self._empty(past, len(prompts)), prompts.astype(np.int64)
        for step in range(new):
            logits, *own = self.session(ids=ids, **dict(zip(past, own, strict=True)), **fixed)
            logits[:, list(self.suppress)] = -np.inf
            if step == 0:
                logits[:, list(self.suppress_first)] = -np.inf
            chosen = logits.argmax(axis=-1)
            open_ &= chosen != self.end
            for row in np.flatnonzero(open_).tolist():
                rows[row].append(int(chosen[row]))
            if not open_.any():
                break
            ids = np.where(open_, chosen, self.end)[:, None]
        return rows

    def _empty(self, names: Sequence[str], rows: int) -> list[Any]:
        """Caches of self-attention before the first id."""
        shapes = [self.session.shapes[name] for name in names]
        return [np.zeros((rows, heads, 0, width), dtype=np.float32) for _, heads, _, width in shapes]
