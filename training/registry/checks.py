"""Which utterances a registry takes: rules on text, length and sound, each with its reason for the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.data.audio import AudioError, AudioInfo
from training.data.example import Example
from training.data.ledger import Drop
from training.data.lengths import length_drop, length_problem, stated_drop
from training.data.levels import SILENCE_DB, Level
from training.data.manifest import parse_words
from training.data.sound_checks import decoded_drop
from training.data.spelling import audible, frames_needed

CLIPPED_NOTE = 0.001
SILENT_NOTE = 0.8


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Bounds; seconds, Hz, dB of full scale, shares from 0 to 1."""

    min_seconds: float = 0.1
    max_seconds: float = 30.0
    min_rate: int = 8000
    silence_db: float = SILENCE_DB
    max_clipped: float = 0.1
    frames_per_second: float = 50.0
    decode: bool = True

    def text_drop(self, example: Example, row: Mapping[str, Any]) -> Drop | None:
        """For the cleaned cells of ``row``."""
        text = row["transcript"]
        if not audible(text):
            return _drop(example, "empty_transcript", "no word in the transcript after cleaning")
        tags, words = len(example.word_languages), len(text.split())
        if tags and tags != words:
            return _drop(
                example, "word_languages", f"{tags} tags for {words} words of the cleaned transcript"
            )
        try:
            if row.get("words"):
                parse_words(row["words"])
        except (ValueError, TypeError) as error:
            return _drop(example, "bad_row", f"words: not JSON of the form [[word, start, end], …] ({error})")
        return None

    def stated_drop(self, example: Example) -> Drop | None:
        """By what the row says of itself, before its file is opened."""
        return stated_drop(example, self.max_seconds)

    def length_drop(self, example: Example, text: str, seconds: float, info: AudioInfo) -> Drop | None:
        """For a stretch that really lasts ``seconds``."""
        if problem := length_problem(example, seconds):
            return _drop(example, "duration_mismatch", problem)
        if drop := length_drop(example, seconds, self.min_seconds, self.max_seconds):
            return drop
        if info.sample_rate < self.min_rate:
            return _drop(example, "low_rate", f"{info.sample_rate} Hz, at least {self.min_rate} Hz")
        return self._alignment_drop(example, text, seconds)

    def _alignment_drop(self, example: Example, text: str, seconds: float) -> Drop | None:
        """A CTC loss would be infinite: every character takes a frame, equal neighbours a blank between them."""
        needed, frames = frames_needed(audible(text)), int(seconds * self.frames_per_second)
        if needed <= frames:
            return None
        detail = f"the transcript needs {needed} frames, {seconds:.2f} s have {frames} at {self.frames_per_second:g} a second"
        return _drop(example, "not_alignable", detail)

    def sound_drop(self, example: Example, text: str, found: Level | AudioError) -> Drop | None:
        """For what decoding gave."""
        drop = decoded_drop(
            example,
            found,
            [text],
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            silence_db=self.silence_db,
        )
        if drop is None and isinstance(found, Level) and found.clipped_share > self.max_clipped:
            share = math.ceil(1000 * found.clipped_share) / 10  # 10.04 % is not "10.0 %, at most 10.0 %"
            detail = f"{share:.1f} % of the samples, at most {100 * self.max_clipped:g} %"
            return _drop(example, "clipped", detail)
        return drop

    def note(self, example: Example, level: Level, info: AudioInfo) -> Drop | None:
        """What is worth a look in an utterance that is kept."""
        if level.clipped_share > CLIPPED_NOTE:
            return _drop(example, "some_clipping", f"{level.clipped_share:.2%} of the samples")
        if level.silent_share > SILENT_NOTE:
            return _drop(example, "mostly_silent", f"{level.silent_share:.0%} of the time")
        return None


def _drop(example: Example, reason: str, detail: str) -> Drop:
    return Drop(example.id, reason, f"{example.source}: {detail}")
