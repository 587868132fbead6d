"""From an utterance to a batch for a Whisper encoder with a language model behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import BatchCollator, UtteranceEncoder
from training.models.common.ctc import check_feasible
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.log_mels import (
    Context,
    check_length,
    count_frames,
    encoder_frames,
    groups_of,
    log_mel,
)
from training.models.common.targets import IGNORED, rectangle
from training.models.common.word_tokens import word_of_tokens


@dataclass(frozen=True)
class VoxLMEncode(UtteranceEncoder):
    """One utterance to ``input_features`` float32 ``[mels, frames]`` and the ids that follow its sound.

    labels: the template's words after the sound (``after``, the prompt), the transcript, ``end``. With ``align``
    (phase 2) also ``words``, how many there are; ``token_words``, the word of each label (-1: none); ``starts`` and
    ``ends`` in seconds; ``ctc_labels``.
    Raises ``ValueError`` for more labels than ``max_label_tokens``, for a clip over 30 s and, with ``align``, for
    word times that are not there or not those of the transcript. An utterance without texts can be transcribed, not trained on.
    """

    feature_extractor: Any
    tokenizer: Any
    after: tuple[int, ...]
    end: int
    tasks: tuple[str, ...] = (TRANSCRIBE,)
    max_label_tokens: int = 448
    align: bool = False
    ctc: CtcCharacters | None = None

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return {
            "id": example.id,
            "seconds": len(waveform) / self.feature_extractor.sampling_rate,
            **self.targets(example, len(waveform)),
            "input_features": log_mel(self.feature_extractor, waveform),
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound with this transcript would raise, without any sound."""
        self.targets(example, round(seconds * self.feature_extractor.sampling_rate))

    def targets(self, example: Example, samples: int) -> dict[str, Any]:
        """Labels, prompt and, with ``align``, what says when each word is spoken."""
        check_length(self.feature_extractor, samples)
        if TRANSCRIBE not in example.texts:
            return {**self.spoken(""), "labels": {TRANSCRIBE: list(self.after)}}
        found = self.spoken(example.texts[TRANSCRIBE])
        if len(found["labels"][TRANSCRIBE]) > self.max_label_tokens:
            raise ValueError(
                f"{len(found['labels'][TRANSCRIBE])} label tokens, at most {self.max_label_tokens}"
            )
        if self.align:
            found |= self._times(example, found["words"], samples)
        return found

    def most_labels(self, seconds: float) -> int:
        return self.max_label_tokens

    def spoken(self, text: str) -> dict[str, Any]:
        """Labels and the words that they belong to, of a text that is taken as the transcript."""
        text = " ".join(text.split())
        ids, words = word_of_tokens(self.tokenizer, text)
        return {
            "labels": {TRANSCRIBE: [*self.after, *ids, self.end]},
            "prompt": {TRANSCRIBE: len(self.after)},
            "token_words": [*[-1] * len(self.after), *words, -1],
            "words": len(text.split()),
        }

    def _times(self, example: Example, words: int, samples: int) -> dict[str, Any]:
        if not example.words:
            raise ValueError(
                "has no word times; training.phase=2 learns from them (polyvox timestamps makes them)"
            )
        if len(example.words) != words:
            raise ValueError(f"the transcript has {words} words, the word times {len(example.words)}")
        found: dict[str, Any] = {
            "starts": [word.start for word in example.words],
            "ends": [word.end for word in example.words],
        }
        if self.ctc is not None:
            spelled = self.ctc.encode(example.texts[TRANSCRIBE])
            check_feasible(encoder_frames(count_frames(self.feature_extractor, samples)), spelled)
            found["ctc_labels"] = spelled
        return found


@dataclass(frozen=True, kw_only=True)
class VoxLMCollator(Context, BatchCollator):
    """Batch of clips and token ids: prompt with one ``audio_id`` for each group of ``stack`` frames, response, EOS.

    ``input_ids``, ``attention_mask`` ``[batch, length]``, right padded; ``labels`` ``[batch, 1, length]``, `IGNORED`
    but for the response and its EOS; ``input_features`` ``[batch, mels, frames]``, ``frames`` ``[batch]`` and the
    ``longest`` of them; ``clip_seconds``, a list;
    ``prompt_lengths`` ``[batch]`` and the longest of them, ``prompt_length``. The attention mask marks padding, whose id may
    be that of EOS. With ``align`` ``token_words``, ``words``, ``starts``, ``ends``, ``ctc_labels`` (see `VoxLM.forward`),
    and ``supervised`` ``[batch]``, two pointers for each word, which losses are divided by.
    """

    before: tuple[int, ...]
    audio_id: int
    pad_id: int
    stack: int
    tasks: tuple[str, ...] = (TRANSCRIBE,)
    align: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        frames = torch.tensor([row["input_features"].shape[-1] for row in features])
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "clip_seconds": [row["seconds"] for row in features],
            "input_features": self.padded(features),
            **self.texts(features, frames),
        }

    def texts(self, features: Sequence[dict[str, Any]], frames: torch.Tensor) -> dict[str, Any]:
        """All of the batch but the sound."""
        groups = groups_of(frames, self.stack)
        fronts = [[*self.before, *[self.audio_id] * int(n)] for n in groups]
        rows = [row["labels"][TRANSCRIBE] for row in features]
        prompts = [len(f) + row["prompt"][TRANSCRIBE] for f, row in zip(fronts, features, strict=True)]
        ids = [[*f, *row] for f, row in zip(fronts, rows, strict=True)]
        labels = [[*[IGNORED] * n, *one[n:]] for n, one in zip(prompts, ids, strict=True)]
        batch = {
            "frames": frames,
            "longest": int(frames.max()),
            "input_ids": rectangle(ids, self.pad_id),
            "attention_mask": rectangle([[1] * len(one) for one in ids], 0),
            "labels": rectangle(labels, IGNORED)[:, None],
            "prompt_lengths": torch.tensor(prompts),
            "prompt_length": max(prompts),
        }
        return {**batch, **self.words(features, fronts)} if self.align else batch

    def words(self, features: Sequence[dict[str, Any]], fronts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The word of each token, and the times of the words where they are known."""
        owners = [[*[-1] * len(f), *row["token_words"]] for f, row in zip(fronts, features, strict=True)]
        batch = {
            "token_words": rectangle(owners, -1),
            "words": torch.tensor([row["words"] for row in features]),
        }
        if any("starts" in row for row in features):
            times = {name: [row.get(name, []) for row in features] for name in ("starts", "ends")}
            batch |= {name: rectangle(rows, 0.0) for name, rows in times.items()}
            batch["supervised"] = torch.tensor([2 * len(row) for row in times["starts"]])
            batch["ctc_labels"] = rectangle([row.get("ctc_labels", []) for row in features], IGNORED)
        return batch
