"""The graph ``decoder`` of a folder in ONNX Runtime: greedy search with flat caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.runtime.onnx_session import Session


class CachedDecoder:
    """A graph whose inputs ``past_…`` are keys and values of self-attention, and whose outputs ``longer_…`` are those with the
    new ids; ``logits`` are those of the next id."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.past = [name for name in session.inputs if name.startswith("past_")]
        self.outputs = ["logits", *(name.replace("past_", "longer_", 1) for name in self.past)]

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        """Caches before the first id."""
        shapes = [self.session.shapes[name] for name in self.past]
        made = [np.zeros((rows, heads, 0, width), dtype=np.float32) for _, heads, _, width in shapes]
        return dict(zip(self.past, made, strict=True))

    def step(
        self, ids: np.ndarray, past: Mapping[str, Any], more: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Logits float32 ``[rows, vocabulary]`` behind ids int64 ``[rows, length]``, and the longer caches.

        Args:
            ids: the new ones.
            past: `empty`, or what the last step returned.
            more: the other inputs of the graph.
        """
        logits, *longer = self.session.some(self.outputs, {"ids": ids, **past, **more})
        return logits.reshape(len(ids), -1), dict(zip(self.past, longer, strict=True))


@dataclass(frozen=True)
class Greedy:
    """Greedy search. end: ends a text. suppress: ids that are never written."""

    decoder: CachedDecoder
    end: int
    suppress: tuple[int, ...] = ()

    def __call__(
        self, prompts: np.ndarray, new: int, more: Callable[[np.ndarray], Mapping[str, Any]]
    ) -> list[list[int]]:
        """Ids that follow each prompt, the end token left out.

        Args:
            prompts: int64 ``[rows, length]``.
            new: the most ids of a row.
            more: the other inputs of the graph, for the new ids of a step.
        """
        rows: list[list[int]] = [[] for _ in prompts]
        open_ = np.ones(len(prompts), dtype=bool)
        past, ids = self.decoder.empty(len(prompts)), prompts
        for _ in range(new):
            logits, past = self.decoder.step(ids, past, more(ids))
            logits[:, list(self.suppress)] = -np.inf
            chosen = logits.argmax(axis=-1)
            open_ &= chosen != self.end
            for row in np.flatnonzero(open_).tolist():
                rows[row].append(int(chosen[row]))
            if not open_.any():
                break
            ids = np.where(open_, chosen, self.end)[:, None]
        return rows
