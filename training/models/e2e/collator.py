"""From an utterance to a batch for a raw-waveform encoder and an mBART decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MBart50Tokenizer, Wav2Vec2FeatureExtractor

from training.data.example import TRANSCRIBE, Example
from training.models.architecture import BatchCollator, UtteranceEncoder
from training.models.common.ctc import check_feasible
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.targets import IGNORED, collate_targets
from training.models.e2e.tokenizer import TASK_TOKENS, language_codes, text_ids, token_id


@dataclass(frozen=True)
class Frames:
    """The convolutions that shorten an encoder's input: kernel and stride, in order."""

    layers: tuple[tuple[int, int], ...]

    def of(self, samples: int) -> int:
        """Frames that ``samples`` give; 0 where the input is shorter than the receptive field."""
        for kernel, stride in self.layers:
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def samples(self, frames: int) -> int:
        """The fewest samples that give ``frames``."""
        for kernel, stride in reversed(self.layers):
            frames = (frames - 1) * stride + kernel
        return frames


@dataclass(frozen=True)
class E2EEncode(UtteranceEncoder):
    """One utterance to ``input_values`` float32 ``[samples]``, labels and prompt per task.

    The waveform is normalised on its own, so that a clip's values do not depend on its batch. The decoder's
    input is mBART-50's own format, ``</s>`` and the language code, with the task token after them:
    ``</s> vi_VN <2transcribe> text``. The transcript's code is that of the row's ``language``, the
    translation's that of its ``target_language``; ``languages`` serves rows that name none.
    ``unknown`` counts characters and pieces that the tokenizer could not write.

    Raises ``ValueError`` for a clip shorter than one frame, for too many label tokens, for a language without
    a token, and (``ctc``) for a transcript that the frames cannot be aligned with.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    tokenizer: MBart50Tokenizer
    tasks: tuple[str, ...]
    languages: tuple[str, str]
    frames: Frames
    max_label_tokens: int = 256
    ctc: CtcCharacters | None = None

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        return {
            "id": example.id,
            "seconds": len(waveform) / self.feature_extractor.sampling_rate,
            **self.targets(example, len(waveform)),
            "input_values": self.values(waveform),
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound with these texts would raise, without any sound."""
        self.targets(example, round(seconds * self.feature_extractor.sampling_rate))

    def targets(self, example: Example, samples: int) -> dict[str, Any]:
        """Labels and prompt per task, the count of the unwritable, and the CTC targets, of a clip of so many samples."""
        frames = self.frames.of(samples)
        if frames < 1:
            raise ValueError(f"{samples} samples of audio, one frame takes {self.frames.samples(1)}")
        prompts = {task: self.prompt(example, task) for task in self.tasks}
        texts = self.texts(example)
        found: dict[str, Any] = {
            "labels": {task: self.labels(prompts[task], texts.get(task), task) for task in self.tasks},
            "prompt": {task: len(ids) for task, ids in prompts.items()},
            "unknown": sum(ids.count(self.tokenizer.unk_token_id) for ids in texts.values()),
        }
        if self.ctc is not None and TRANSCRIBE in example.texts:
            spelled = self.ctc.encode(example.texts[TRANSCRIBE])
            check_feasible(frames, spelled)
            found["ctc_labels"] = spelled
        return found

    def texts(self, example: Example) -> dict[str, list[int]]:
        """The ids of each text of the example that is among the tasks."""
        return {t: text_ids(self.tokenizer, example.texts[t]) for t in self.tasks if t in example.texts}

    def unwritable(self, example: Example) -> int:
        """Characters and pieces of the texts that this vocabulary, trimmed perhaps, has no id for."""
        return sum(ids.count(self.tokenizer.unk_token_id) for ids in self.texts(example).values())

    def most_labels(self, seconds: float) -> int:
        return self.max_label_tokens

    def values(self, waveform: np.ndarray) -> np.ndarray:
        """The output of the feature extractor for the clip: float32 ``[samples]``."""
        extractor = self.feature_extractor
        return extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="np").input_values[0]

    def prompt(self, example: Example, task: str) -> list[int]:
        """The token ids between the start token and the text, in training and in generation."""
        source, target = self.languages
        language = (example.language or source) if task == TRANSCRIBE else (example.target_language or target)
        code: str | None = language
        if language not in self.languages:  # a table's cell, which may name any control token
            codes = language_codes(self.tokenizer)
            code = language if language in codes.values() else codes.get(language)
        if code is None:
            raise ValueError(f"language {language!r} has no token in this tokenizer")
        return [token_id(self.tokenizer, token) for token in (code, TASK_TOKENS[task])]

    def labels(self, prompt: list[int], text: list[int] | None, task: str) -> list[int]:
        """The prompt, and the text with EOS where there is one."""
        if text is None:
            return prompt
        labels = [*prompt, *text, self.tokenizer.eos_token_id]
        if len(labels) > self.max_label_tokens:
            raise ValueError(f"{task}: {len(labels)} label tokens, at most {self.max_label_tokens}")
        return labels


@dataclass(frozen=True)
class E2ECollator(BatchCollator):
    """Batch of clips: ``input_values`` and ``attention_mask`` ``[batch, samples]``, targets of `collate_targets`.

    Clips are filled up with zeros to the longest, and to ``min_samples`` (SpecAugment refuses inputs that are
    shorter than one of its spans). The mask tells the model how long each clip is, whether or not its encoder
    looks at it.
    """

    tasks: tuple[str, ...]
    start_id: int
    pad_id: int
    min_samples: int = 1
    ctc: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate_targets(features, self.tasks, self.start_id, self.pad_id)
        batch["ids"] = [row["id"] for row in features]
        batch["seconds"] = sum(row["seconds"] for row in features)
        batch["input_values"], batch["attention_mask"] = self.pad([row["input_values"] for row in features])
        if self.ctc:
            targets = [torch.tensor(row.get("ctc_labels", []), dtype=torch.long) for row in features]
            batch["ctc_labels"] = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        return batch

    def pad(self, clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 values and int64 mask, both ``[batch, samples]``."""
        longest = max(self.min_samples, *map(len, clips))
        values = torch.zeros(len(clips), longest)
        mask = torch.zeros(len(clips), longest, dtype=torch.long)
        for i, clip in enumerate(clips):
            values[i, : len(clip)] = torch.from_numpy(clip)
            mask[i, : len(clip)] = 1
        return values, mask
