"""Whisper's way from an utterance to a batch: log-mels as long as the clip, prompts per row and task."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperProcessor

from training.data.collators import IGNORED, collate_targets
from training.data.example import TRANSCRIBE, Example
from training.nn.ctc import CtcCharacters, check_feasible

FRAMES_PER_SECOND = 100
MAX_FRAMES = 3000
TAIL = 640
"""Samples of silence after each clip: four frames, the last of which sees nothing but silence."""


@dataclass(frozen=True)
class WhisperEncode:
    """One utterance to features: ``input_features`` float32 ``[mels, frames]``, labels and prompt per task.

    The decoder prompt of a row is its language token, its task token and ``<|notimestamps|>``; the text
    follows a space, as in Whisper's own training. ``language`` serves rows that name none.
    Raises ``ValueError`` for more label tokens than the decoder has positions (they would crash on a GPU
    long after the start), for a language without a token, and for a clip over 30 s.
    """

    processor: WhisperProcessor
    tasks: tuple[str, ...]
    language: str
    max_label_tokens: int = 448
    ctc: CtcCharacters | None = None

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return {
            "id": example.id,
            "seconds": len(waveform) / self.processor.feature_extractor.sampling_rate,
            **self.targets(example, len(waveform)),
            "input_features": self.log_mel(waveform),
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound with these texts would raise, without any sound."""
        self.targets(example, round(seconds * self.processor.feature_extractor.sampling_rate))

    def targets(self, example: Example, samples: int) -> dict[str, Any]:
        """Labels and prompt per task, and the CTC targets, of a clip of so many samples."""
        self._check_length(samples)
        labels = {task: self.labels(example, task) for task in self.tasks}
        prompt = {task: len(self.prompt(example, task)) for task in labels}
        found: dict[str, Any] = {"labels": labels, "prompt": prompt}
        if self.ctc is not None and TRANSCRIBE in example.texts:
            spelled = self.ctc.encode(example.texts[TRANSCRIBE])
            check_feasible(self.frames(samples) // 2, spelled)
            found["ctc_labels"] = spelled
        return found

    def frames(self, samples: int) -> int:
        """Log-mel frames of a clip and the silence after it."""
        extractor = self.processor.feature_extractor
        return min(samples + TAIL, extractor.n_samples) // extractor.hop_length

    def _check_length(self, samples: int) -> None:
        extractor = self.processor.feature_extractor
        if samples > extractor.n_samples:
            raise ValueError(
                f"{samples / extractor.sampling_rate:.1f} s of audio, at most {extractor.chunk_length} s"
            )

    def labels(self, example: Example, task: str) -> list[int]:
        """Ids after the start token: prompt, text, EOS; the prompt alone where the example has no text."""
        tokenizer = self.processor.tokenizer
        prompt = self.prompt(example, task)
        if task not in example.texts:
            return prompt
        ids = tokenizer(f" {example.texts[task]}", add_special_tokens=False).input_ids
        labels = [*prompt, *ids, tokenizer.eos_token_id]
        if len(labels) + 1 > self.max_label_tokens:
            raise ValueError(f"{task}: {len(labels) + 1} label tokens, at most {self.max_label_tokens}")
        return labels

    def prompt(self, example: Example, task: str) -> list[int]:
        """What stands between the start token and the text, in training and in generation."""
        tokenizer = self.processor.tokenizer
        language = f"<|{example.language or self.language}|>"
        if language not in tokenizer.get_added_vocab():
            raise ValueError(f"language {example.language or self.language!r} has no token in this tokenizer")
        return tokenizer.convert_tokens_to_ids([language, f"<|{task}|>", "<|notimestamps|>"])

    def log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """Log-mel float32 ``[mels, frames]`` of the clip and a little silence, 100 frames a second.

        Equal to the stock extractor's 30 s, cut after the clip: the last frame is pure silence, so that the
        collator can go on with it.
        """
        self._check_length(len(waveform))
        extractor = self.processor.feature_extractor
        padded = np.pad(waveform, (0, TAIL))[: extractor.n_samples]
        result = extractor(
            padded,
            sampling_rate=extractor.sampling_rate,
            padding="longest",
            truncation=False,
            return_tensors="np",
        )
        return result["input_features"][0]


@dataclass(frozen=True)
class WhisperCollator:
    """Batch of clips: ``input_features`` ``[batch, mels, frames]`` and the targets of `collate_targets`.

    ``context="full"`` pads to 30 s. ``"trimmed"`` pads to the longest clip and ``margin`` seconds; a
    ``full_share`` of the batches, chosen by their ids (the same in a resumed run and on every rank), is
    padded to 30 s all the same, so that the model keeps serving stock pipelines.
    """

    tasks: tuple[str, ...]
    start_id: int
    pad_id: int
    context: str = "trimmed"
    margin: float = 1.0
    full_share: float = 0.0
    ctc: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate_targets(features, self.tasks, self.start_id, self.pad_id)
        batch["ids"] = [row["id"] for row in features]
        batch["seconds"] = sum(row["seconds"] for row in features)
        batch["input_features"] = self._pad(
            [row["input_features"] for row in features], self.frames(features)
        )
        if self.ctc:
            batch["frames"] = torch.tensor([row["input_features"].shape[-1] for row in features])
            targets = [torch.tensor(row.get("ctc_labels", []), dtype=torch.long) for row in features]
            batch["ctc_labels"] = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        return batch

    def frames(self, features: Sequence[dict[str, Any]]) -> int:
        """Log-mel frames of the batch; even, because the encoder halves them."""
        longest = max(row["input_features"].shape[-1] for row in features)
        if self.context == "full" or self._is_full([row["id"] for row in features]):
            return MAX_FRAMES
        return min(MAX_FRAMES, 2 * ((longest + int(self.margin * FRAMES_PER_SECOND) + 1) // 2))

    def _is_full(self, ids: list[str]) -> bool:
        return self.full_share > 0 and zlib.crc32("\n".join(ids).encode()) / 2**32 < self.full_share

    @staticmethod
    def _pad(log_mels: list[np.ndarray], frames: int) -> torch.Tensor:
        """Each clip goes on with its own last frame: silence after that clip's normalisation."""
        rows = [np.pad(row, ((0, 0), (0, frames - row.shape[-1])), mode="edge") for row in log_mels]
        return torch.from_numpy(np.stack(rows))
