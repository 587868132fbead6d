"""Whisper's way from an utterance to a batch: log-mels as long as the clip, prompts per row and task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperProcessor

from training.base.language_names import language_code, short_code
from training.data.example import TRANSCRIBE, Example
from training.models.architecture import AUTO, BatchCollator, UtteranceEncoder
from training.models.common.ctc import check_feasible
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.log_mels import Context, check_length, count_frames, log_mel, longest_seconds
from training.models.common.plain_text import text_ids
from training.models.common.targets import IGNORED, collate_targets
from training.models.whisper.tokenizer import (
    PREVIOUS,
    language_token,
    names_language,
    timestamp_ids,
)

FIXED_TOKENS = 6
"""Positions beside the text: the start token, language, task, domain, ``<|notimestamps|>``, EOS."""
PREVIOUS_TOKENS = 223
"""The most tokens of previous text in Whisper's prompt: half of its 448 positions, less ``<|startofprev|>``."""


@dataclass(frozen=True)
class WhisperEncode(UtteranceEncoder):
    """One utterance to features: ``input_features`` float32 ``[mels, frames]``, labels and prompt per task.

    The decoder prompt of a row is its language token, its task token and ``<|notimestamps|>``; the text
    follows a space, as in Whisper's own training. ``language`` serves rows that name none. `AUTO` leaves the language of
    an utterance without texts open: EOS takes the place of its token until `training.models.whisper.abilities` detects it.
    Training samples may have more (`training.data.long_form`). With ``segments`` each of them is written as
    ``<|0.00|> text<|2.40|>``, and the prompt has no ``<|notimestamps|>``; labels that would be too long with times have
    none; that is a ``ValueError`` where a segment has no text (a clip that is cut). With ``previous`` text, ``before`` holds by task the ids in front of the start token: ``<|startofprev|>`` and
    as many of the text's last tokens as fit, at most `PREVIOUS_TOKENS`.
    Raises ``ValueError`` for more label tokens than the decoder has positions (they would crash on a GPU
    long after the start), for a language without a token, for a text without a language, and for a clip over 30 s.
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
            "input_features": log_mel(self.processor.feature_extractor, waveform),
        }

    def check(self, example: Example, seconds: float) -> None:
        """Raise what encoding ``seconds`` of sound with these texts would raise, without any sound."""
        self.targets(example, round(seconds * self.processor.feature_extractor.sampling_rate))

    def targets(self, example: Example, samples: int) -> dict[str, Any]:
        """Labels and prompt per task, and the CTC targets, of a clip of so many samples."""
        check_length(self.processor.feature_extractor, samples)
        if example.segments and any(self._surplus(self.ids(example, task)) > 0 for task in self.tasks):
            if any(not one.text for ones in example.segments.values() for one in ones):
                raise ValueError(
                    "a clip that is cut has nothing but a time in the labels, which are too long with times"
                )
            example = replace(example, segments={})
        labels = {task: self.labels(example, task) for task in self.tasks}
        prompt = {task: len(self.prompt(example, task)) for task in labels}
        found: dict[str, Any] = {"labels": labels, "prompt": prompt}
        if example.previous:
            found["before"] = {task: self.before(example, task, len(ids)) for task, ids in labels.items()}
        if self.ctc is not None and TRANSCRIBE in example.texts:
            spelled = self.ctc.encode(example.texts[TRANSCRIBE])
            check_feasible(count_frames(self.processor.feature_extractor, samples) // 2, spelled)
            found["ctc_labels"] = spelled
        return found

    def most_labels(self, seconds: float) -> int:
        return self.max_label_tokens

    @property
    def longest(self) -> float:
        return longest_seconds(self.processor.feature_extractor)

    def labels(self, example: Example, task: str) -> list[int]:
        """Ids after the start token: prompt, text, EOS; the prompt alone where the example has no text."""
        labels = self.ids(example, task)
        if self._surplus(labels) > 0:
            raise ValueError(f"{task}: {len(labels) + 1} label tokens, at most {self.max_label_tokens}")
        return labels

    def ids(self, example: Example, task: str) -> list[int]:
        """The same, however many they are."""
        prompt = self.prompt(example, task)
        if task not in example.texts:
            return prompt
        return [*prompt, *self.written(example, task), self.processor.tokenizer.eos_token_id]

    def written(self, example: Example, task: str) -> list[int]:
        """The ids of a text, with the times of its segments where they are given."""
        tokenizer = self.processor.tokenizer
        if task not in example.segments:
            return text_ids(tokenizer, f" {example.texts[task]}")
        found: list[int] = []
        for segment in example.segments[task]:
            start, end = timestamp_ids(tokenizer, segment.start, segment.end)
            found += [start, *text_ids(tokenizer, f" {segment.text}"), end] if segment.text else [start]
        return found

    def before(self, example: Example, task: str, labels: int) -> list[int]:
        """The ids in front of the start token: as much of the previous text as ``labels`` leave room for."""
        room = min(PREVIOUS_TOKENS, self.max_label_tokens - labels - 2)
        if task not in example.texts or task not in example.previous or room < 1:
            return []
        tokenizer = self.processor.tokenizer
        ids = text_ids(tokenizer, f" {example.previous[task]}")
        return [tokenizer.convert_tokens_to_ids(PREVIOUS), *ids[-room:]]

    def _surplus(self, labels: Sequence[int]) -> int:
        return len(labels) + 1 - self.max_label_tokens

    def prompt(self, example: Example, task: str) -> list[int]:
        """The token ids between the start token and the text, in training and in generation."""
        tokenizer = self.processor.tokenizer
        language = example.language or self.language
        # Not get_added_vocab(): it makes a table of Whisper's 1,600 tokens at each call.
        token = tokenizer.eos_token if language == AUTO else language_token(language)
        controls = [token, f"<|{task}|>"] if example.segments else [token, f"<|{task}|>", "<|notimestamps|>"]
        ids = tokenizer.convert_tokens_to_ids(controls)
        if language == AUTO:
            if example.texts:
                raise ValueError("no language is named, neither by the utterance nor by the model; name one")
        elif ids[0] == tokenizer.unk_token_id or not names_language(token):
            code = short_code(language_code(language))
            hint = f"; the code of {language} is {code}" if code and code != language else ""
            raise ValueError(f"language {language!r} has no token in this tokenizer{hint}")
        return ids


@dataclass(frozen=True, kw_only=True)
class WhisperCollator(Context, BatchCollator):
    """Batch of clips: ``input_features`` ``[batch, mels, frames]``, ``clip_seconds`` and the targets of `collate_targets`.

    A ``full_share`` of the training clips is padded to 30 s although the context is trimmed, so that the model
    keeps serving stock pipelines. ``mixed``: prompts may differ in length, see `collate_targets`.
    """

    tasks: tuple[str, ...]
    start_id: int
    pad_id: int
    ctc: bool = False
    mixed: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate_targets(features, self.tasks, self.start_id, self.pad_id, mixed=self.mixed)
        batch["ids"] = [row["id"] for row in features]
        batch["clip_seconds"] = [row["seconds"] for row in features]
        batch["seconds"] = sum(batch["clip_seconds"])
        batch["input_features"] = self.padded(features)
        if self.ctc:
            batch["frames"] = torch.tensor([row["input_features"].shape[-1] for row in features])
            targets = [torch.tensor(row.get("ctc_labels", []), dtype=torch.long) for row in features]
            batch["ctc_labels"] = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        return batch
