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
from training.runtime.log_mels import ExtractorSizes
from training.runtime.onnx_decoder import CachedDecoder
from training.runtime.onnx_session import Session
from training.runtime.token_search import Rules, Written, log_softmax

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
    """`training.runtime.whisper_abilities.Engine` for ``encoder.onnx`` and ``decoder.onnx``.

    Its states are the outputs of `training.models.whisper.graphs.EncoderGraph`.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        prompts = description.prompts
        assert prompts is not None
        self.prompts, self.has_head = prompts, description.head is not None
        self.encoder = Session(folder / "encoder.onnx")
        self.decoder = CachedDecoder(
            Session(folder / "decoder.onnx"), Rules(prompts.end, prompts.suppress, prompts.suppress_first)
        )

    def encode(self, log_mels: np.ndarray) -> Caches:
        """See `Engine.encode`."""
        return self.encoder(log_mels=np.ascontiguousarray(log_mels, dtype=np.float32))

    def row(self, states: Caches, row: int) -> Caches:
        """See `Engine.row`."""
        return [part[row : row + 1] for part in states]

    def generate(
        self, states: Caches, prompts: np.ndarray, search: Search, *, scored: bool = False
    ) -> list[Written]:
        """See `Engine.generate`."""
        return self.decoder.write(prompts, self._sound(states), search, scored=scored)

    def likeliest(self, states: Caches, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """See `Engine.likeliest`."""
        logits = self.decoder.steps(self._sound(states), len(prompts))(prompts)
        return [among[place] for place in logits[:, list(among)].argmax(axis=-1).tolist()]

    def language_logits(self, states: Caches, languages: Mapping[str, int]) -> np.ndarray:
        """See `Engine.language_logits`."""
        return self._first(states)[:, list(languages.values())]

    def no_speech(self, states: Caches) -> list[float]:
        """See `Engine.no_speech`."""
        shares = softmax(self._first(states))[:, list(self.prompts.no_speech)]
        found: list[float] = shares.sum(axis=-1).tolist()
        return found

    def read(
        self, states: Caches, prompts: np.ndarray, texts: Sequence[Sequence[int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `Engine.read`."""
        first, longest = prompts.shape[1] - 1, max(map(len, texts))
        ids = np.full((len(texts), longest), self.prompts.end, dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
        places = np.arange(first, first + longest)
        steps = self.decoder.steps(self._sound(states), len(texts))
        logits, (attention,) = steps.read(np.concatenate((prompts, ids), axis=1), places)
        log_probs = np.take_along_axis(log_softmax(logits), ids[:, :, None], axis=-1)[:, :, 0]
        return [
            (attention[row, :, first : first + len(text) + 1], log_probs[row, : len(text)])
            for row, text in enumerate(texts)
        ]

    def head(self, states: Caches, head: np.ndarray) -> np.ndarray:
        """See `Engine.head`; the graph has computed it."""
        return states[-1]

    def _sound(self, states: Caches) -> Caches:
        return states[:-1] if self.has_head else states

    def _first(self, states: Caches) -> np.ndarray:
        """Logits after the start token, float32 ``[clips, vocabulary]``."""
        clips = len(states[0])
        return self.decoder.steps(self._sound(states), clips)(np.full((clips, 1), self.prompts.start))
