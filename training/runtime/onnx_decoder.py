"""The graph ``decoder`` of a folder in ONNX Runtime, step by step with flat caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.models.safeguards import Search
from training.runtime.beam_search import beam_search
from training.runtime.onnx_session import Session
from training.runtime.token_search import Rules, Steps, Written, allowed, follow

PAST, WANTED, LONGER = "past_", "wanted", "longer_"
"""What the inputs and outputs of `training.models.common.decoder_graph` are called."""


def write(
    steps: Steps, prompts: np.ndarray, rules: Rules, search: Search, *, scored: bool = False
) -> list[Written]:
    """The text that follows each prompt int64 ``[rows, length]``, by beams or by the likeliest token.

    Args:
        steps: before its first ids.
        prompts: of which those of a clip stand together.
        rules: of the model.
        search: with the most ids of a text.
        scored: also tell the log-probabilities.
    """
    rules = allowed(rules, search)
    if search.beams > 1:
        return beam_search(steps, prompts, rules, search)
    return follow(steps, prompts, rules, search, scored=scored)


@dataclass(frozen=True)
class CachedDecoder:
    """Search with a graph of `training.models.common.decoder_graph`. rules: tokens that are never written."""

    session: Session
    rules: Rules

    def write(
        self, prompts: np.ndarray, sound: Sequence[np.ndarray], search: Search, *, scored: bool = False
    ) -> list[Written]:
        """The text that follows each prompt.

        Args:
            prompts: int64 ``[rows, length]``; the rows of a clip stand together.
            sound: the inputs of the graph that come from the encoder: the keys and values of cross-attention last.
            search: with the most ids of a text.
            scored: also tell the log-probabilities.
        """
        return write(self.steps(sound, len(prompts)), prompts, self.rules, search, scored=scored)

    def steps(self, sound: Sequence[np.ndarray], rows: int) -> CachedSteps:
        """The decoder before its first ids."""
        return CachedSteps(self.session, sound, rows)


def empty_caches(session: Session, rows: int) -> dict[str, Any]:
    """Caches of self-attention before the first id, by the name of the graph's input."""
    shapes = session.shapes
    return {
        name: np.zeros((rows, shapes[name][1], 0, shapes[name][3]), dtype=np.float32)
        for name in session.inputs
        if name.startswith(PAST)
    }


class CachedSteps:
    """`training.runtime.token_search.Steps` of a graph; it knows which rows are a clip's by their order."""

    def __init__(self, session: Session, sound: Sequence[np.ndarray], rows: int) -> None:
        self.session = session
        inputs, own = session.inputs, empty_caches(session, rows)
        self.past, self.own = list(own), list(own.values())
        rest = [name for name in inputs if name not in ("ids", WANTED, *self.past)]
        self.sound = dict(zip(rest, sound, strict=True))
        self.tells_wanted = WANTED in inputs
        self.outputs = ["logits", *(name.replace(PAST, LONGER, 1) for name in self.past)]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        logits, *self.own = self.session.some(self.outputs, self._inputs(ids, [ids.shape[1] - 1]))
        found: np.ndarray = logits[:, 0] if self.tells_wanted else logits
        return found

    def read(self, ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """Read ids; the logits of what follows those at the places ``wanted`` (where the graph asks for them), and the
        outputs behind the caches."""
        logits, *others = self.session(**self._inputs(ids, wanted))
        self.own, more = others[: len(self.own)], others[len(self.own) :]
        return logits, more

    def _inputs(self, ids: np.ndarray, wanted: Sequence[int] | np.ndarray) -> dict[str, Any]:
        inputs = {"ids": ids, **dict(zip(self.past, self.own, strict=True)), **self.sound}
        return {**inputs, WANTED: np.asarray(wanted, dtype=np.int64)} if self.tells_wanted else inputs

    def keep(self, rows: np.ndarray) -> None:
        self.own = [part[rows] for part in self.own]
