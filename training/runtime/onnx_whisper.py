"""Whisper in ONNX Runtime: the graphs, and the search around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.models.common.language_choice import softmax
from training.models.export_parts import Description
from training.models.safeguards import Search
from training.runtime.beam_search import beam_search
from training.runtime.log_mels import ExtractorSizes
from training.runtime.onnx_session import Session
from training.runtime.token_search import Rules, Written, allowed, follow

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
    """`training.runtime.whisper_abilities.Engine` for ``encoder.onnx`` and ``decoder.onnx``."""

    def __init__(self, folder: Path, description: Description) -> None:
        assert description.prompts is not None
        self.prompts = description.prompts
        self.rules = Rules(self.prompts.end, self.prompts.suppress, self.prompts.suppress_first)
        self.encoder, self.decoder = (Session(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
        self.layers = len(self.encoder.outputs) // 2

    def encode(self, log_mels: np.ndarray) -> Caches:
        """Keys and values of cross-attention, see `training.models.whisper.graphs.EncoderGraph`."""
        return self.encoder(log_mels=np.ascontiguousarray(log_mels, dtype=np.float32))

    def row(self, states: Caches, row: int) -> Caches:
        """See `Engine.row`."""
        return [part[row : row + 1] for part in states]

    def generate(
        self, states: Caches, prompts: np.ndarray, search: Search, *, scored: bool = False
    ) -> list[Written]:
        """See `Engine.generate`."""
        steps, rules = OnnxSteps(self, states, len(prompts)), allowed(self.rules, search)
        if search.beams > 1:
            return beam_search(steps, prompts, rules, search)
        return follow(steps, prompts, rules, search, scored=scored)

    def likeliest(self, states: Caches, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """See `Engine.likeliest`."""
        logits = OnnxSteps(self, states, len(prompts))(prompts)
        return [among[place] for place in logits[:, list(among)].argmax(axis=-1).tolist()]

    def language_logits(self, states: Caches, languages: Mapping[str, int]) -> np.ndarray:
        """See `Engine.language_logits`."""
        return self._first(states)[:, list(languages.values())]

    def no_speech(self, states: Caches) -> list[float]:
        """See `Engine.no_speech`."""
        return softmax(self._first(states))[:, list(self.prompts.no_speech)].sum(axis=-1).tolist()

    def _first(self, states: Caches) -> np.ndarray:
        """Logits after the start token."""
        clips = len(states[0])
        return OnnxSteps(self, states, clips)(np.full((clips, 1), self.prompts.start))


class OnnxSteps:
    """`training.runtime.token_search.Steps` of the graph ``decoder``."""

    def __init__(self, engine: OnnxWhisper, states: Caches, rows: int) -> None:
        self.engine = engine
        clips, heads, _, width = states[0].shape
        self.sound = [np.repeat(part, rows // clips, axis=0) for part in states] if rows > clips else states
        self.own: Caches = [np.zeros((rows, heads, 0, width), dtype=np.float32)] * (2 * engine.layers)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        decoder = self.engine.decoder
        values = [ids.astype(np.int64), *self.own, *self.sound]
        logits, *self.own = decoder(**dict(zip(decoder.inputs, values, strict=True)))
        return logits

    def keep(self, rows: np.ndarray) -> None:
        self.own = [part[rows] for part in self.own]
        if len(rows) != len(self.sound[0]):
            self.sound = [part[rows] for part in self.sound]
