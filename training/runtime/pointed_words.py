"""Times and confidences of the words of given texts, by the graph ``aligner`` of an exported folder.

The counterpart of `training.models.voxlm.words`, with numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from training.data.example import SpokenWord
from training.models.batch import Batch
from training.models.common.log_mels import (
    ENCODER_FRAMES_PER_SECOND,
    FRAMES_PER_SECOND,
    encoder_frames,
    groups_of,
)
from training.models.common.monotone import word_times
from training.models.common.word_tokens import word_of_tokens
from training.models.export_parts import SpokenPrompt
from training.runtime.onnx_decoder import empty_caches
from training.runtime.spoken_prompts import placed
from training.runtime.text import Backend


@dataclass(frozen=True)
class Texts:
    """Texts behind their clips, as the language model gets them.

    ids: int64 ``[rows, length]``, filled up with padding. owners: the word of each id ``[rows, length]``, -1 for none.
    counts: words of each row, int64 ``[rows]``.
    """

    ids: np.ndarray
    owners: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class PointedWords:
    """`training.models.abilities.Aligner` for a `training.runtime.language_model.SpokenLanguageModel`.

    A word's confidence is the probability of all its tokens, each after those before it.
    """

    prompt: SpokenPrompt
    tokenizer: Tokenizer
    given_text: bool = True

    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: Any = None
    ) -> list[tuple[SpokenWord, ...]]:
        frames = batch["frames"]
        written = self._texts(texts, frames)
        if not written.counts.any():
            return [()] * len(texts)
        encoded, sound = model.encode(batch) if states is None else states
        hidden, sure = self._read(model, written, sound)
        times = model.aligner(
            states=np.ascontiguousarray(encoded),
            frames=encoder_frames(frames),
            words=_pooled(hidden, written),
            counts=written.counts,
        )
        return [
            self._words(
                text, [pointer[i] for pointer in times], sure[i], int(frames[i]), batch["clip_seconds"][i]
            )
            for i, text in enumerate(texts)
        ]

    @cached_property
    def _backend(self) -> Backend:
        return Backend(self.tokenizer)

    def _texts(self, texts: Sequence[str], frames: np.ndarray) -> Texts:
        fronts = [
            [*self.prompt.before, *[self.prompt.placeholder] * int(n), *self.prompt.after]
            for n in groups_of(frames, self.prompt.stack)
        ]
        words = [word_of_tokens(self._backend, " ".join(text.split())) for text in texts]
        length = max(len(front) + len(ids) + 1 for front, (ids, _) in zip(fronts, words, strict=True))
        all_ids = np.full((len(texts), length), self.prompt.padding, dtype=np.int64)
        owners = np.full(all_ids.shape, -1, dtype=np.int64)
        for row, (front, (ids, owner)) in enumerate(zip(fronts, words, strict=True)):
            end = len(front) + len(ids)
            all_ids[row, : end + 1] = [*front, *ids, self.prompt.end]
            owners[row, len(front) : end] = owner
        return Texts(all_ids, owners, np.array([len(text.split()) for text in texts], dtype=np.int64))

    def _read(self, model: Any, texts: Texts, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Last states ``[rows, length, width]``, and of each word the probability of its tokens ``[rows, words]``."""
        spelled = texts.owners >= 0
        most = int(spelled.sum(axis=1).max())
        # The places of each row's tokens first, then others, which do not count.
        places = np.argsort(~spelled, axis=1, kind="stable")[:, :most]
        counts = np.take_along_axis(spelled, places, axis=1)
        logits, hidden = model.decoder.some(
            ["logits", "hidden"],
            {
                "ids": texts.ids,
                "sound": placed(sound, texts.ids, self.prompt.placeholder),
                "padding": np.zeros(len(texts.ids), dtype=np.int64),
                "read": (places - 1).clip(min=0),
                **empty_caches(model.decoder, len(texts.ids)),
            },
        )
        top = logits.max(axis=-1, keepdims=True)
        norm = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
        ids = np.where(counts, np.take_along_axis(texts.ids, places, axis=1), 0)
        log_probs = np.take_along_axis(logits, ids[..., None], axis=2)[..., 0] - norm
        sums = np.zeros((len(ids), int(texts.counts.max())))
        rows, there = np.nonzero(counts)
        owners = np.take_along_axis(texts.owners, places, axis=1)
        np.add.at(sums, (rows, owners[rows, there]), log_probs[rows, there])
        return hidden, np.exp(sums)

    def _words(
        self, text: str, pointers: Sequence[np.ndarray], sure: np.ndarray, frames: int, seconds: float
    ) -> tuple[SpokenWord, ...]:
        words, length = text.split(), encoder_frames(frames)
        starts, ends = (pointer[: len(words), :length] for pointer in pointers)
        # The frames hold a little silence more than the clip.
        times = word_times(
            starts, ends, 1 / ENCODER_FRAMES_PER_SECOND, min(frames / FRAMES_PER_SECOND, seconds)
        )
        return tuple(
            SpokenWord(text=word, start=float(a), end=float(b), confidence=float(sure[k]))
            for k, (word, (a, b)) in enumerate(zip(words, times, strict=True))
        )


def _pooled(hidden: np.ndarray, texts: Texts) -> np.ndarray:
    """The mean state of each word's tokens, float32 ``[rows, words, width]``."""
    member = (texts.owners[..., None] == np.arange(int(texts.counts.max()))).astype(np.float32)
    return (member.transpose(0, 2, 1) @ hidden) / member.sum(axis=1).clip(min=1)[..., None]
