"""Whisper in ONNX Runtime: the graphs, and the search around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.models.export_parts import Description
from training.runtime.log_mels import ExtractorSizes
from training.runtime.onnx_session import Session

Caches = list[np.ndarray]


@dataclass(frozen=True)
class OnnxLogMels(ExtractorSizes):
    """Whisper's log-mels by ``features.onnx``, as `training.runtime.log_mels.LogMels`."""

    session: Session

    def __call__(self, waveform: np.ndarray, **stock: Any) -> dict[str, np.ndarray]:
        """``input_features``: float32 ``[1, mels, frames]`` of one clip ``[time]``."""
        (found,) = self.session(waveform=waveform.astype(np.float32))
        return {"input_features": found[None]}


class OnnxWhisper:
    """`training.runtime.whisper.Engine` for ``encoder.onnx`` and ``decoder.onnx``."""

    def __init__(self, folder: Path, description: Description) -> None:
        assert description.prompts is not None
        self.prompts = description.prompts
        self.encoder, self.decoder = (Session(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
        self.layers = len(self.encoder.outputs) // 2

    def encode(self, log_mels: np.ndarray) -> Caches:
        """Keys and values of cross-attention, see `training.models.whisper.graphs.EncoderGraph`."""
        return self.encoder(log_mels=np.ascontiguousarray(log_mels, dtype=np.float32))

    def generate(self, states: Caches, prompts: np.ndarray, new: int, beams: int) -> list[list[int]]:
        """See `Engine.generate`."""
        if beams > 1:
            raise UserError(
                "--beam_width: exported ONNX graphs of a Whisper are searched greedily; leave it out"
            )
        end = self.prompts.end
        rows: list[list[int]] = [[] for _ in prompts]
        open_ = np.ones(len(prompts), dtype=bool)
        logits, own = self._step(prompts, self._empty(states), states)
        for step in range(new):
            logits[:, list(self.prompts.suppress)] = -np.inf
            if step == 0:
                logits[:, list(self.prompts.suppress_first)] = -np.inf
            chosen = logits.argmax(axis=-1)
            open_ &= chosen != end
            for row in np.flatnonzero(open_).tolist():
                rows[row].append(int(chosen[row]))
            if not open_.any() or step == new - 1:
                break
            logits, own = self._step(np.where(open_, chosen, end)[:, None], own, states)
        return rows

    def likeliest(self, states: Caches, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """See `Engine.likeliest`."""
        logits, _ = self._step(prompts, self._empty(states), states)
        return [among[place] for place in logits[:, list(among)].argmax(axis=-1).tolist()]

    def _empty(self, states: Caches) -> Caches:
        """Caches of self-attention before the first id."""
        batch, heads, _, width = states[0].shape
        return [np.zeros((batch, heads, 0, width), dtype=np.float32)] * (2 * self.layers)

    def _step(self, ids: np.ndarray, own: Caches, cross: Caches) -> tuple[np.ndarray, Caches]:
        values = [ids.astype(np.int64), *own, *cross]
        logits, *longer = self.decoder(**dict(zip(self.decoder.inputs, values, strict=True)))
        return logits, longer
