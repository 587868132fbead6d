"""From rows of a data source to records: audio, words with times, and the word error rate of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from training.alignment.parts import Record
from training.alignment.teacher import Clip, NoTimes, Teacher, Timed
from training.alignment.teachers import load_teacher
from training.data.checks import Rows
from training.data.example import TRANSCRIBE, Example, SpokenWord
from training.data.lengths import length_problem
from training.decoding.quiet import quiet
from training.evaluation.normalize import normalizer
from training.evaluation.word_alignment import align_words

READERS = 8
"""Threads that read the sounds of a batch, with ``fast``."""
DIGITS = 3
"""Times are kept to the millisecond."""


@dataclass
class Labeller:
    """``row numbers -> their records``; picklable, and loads its teacher at the first call.

    fast: the sounds of a batch are read in threads. language: of rows that name none.
    """

    rows: Rows
    model: str
    device: str | None = None
    native: bool = False
    fast: bool = False
    language: str | None = None
    _teacher: Teacher | None = field(default=None, repr=False)

    @property
    def teacher(self) -> Teacher:
        if self._teacher is None:
            quiet()
            self._teacher = load_teacher(self.model, device=self.device, native=self.native)
        return self._teacher

    def __call__(self, batch: Sequence[int]) -> list[Record]:
        found = self._read(batch)
        clips = [one for one in found if isinstance(one, Clip)]
        answers = iter(self.teacher(clips) if clips else [])
        return [record_of(one, next(answers)) if isinstance(one, Clip) else one for one in found]

    def _read(self, batch: Sequence[int]) -> list[Clip | Record]:
        rate = self.teacher.sample_rate
        if not self.fast:
            return [self._clip(row, rate) for row in batch]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda row: self._clip(row, rate), batch))

    def _clip(self, row: int, rate: int) -> Clip | Record:
        example = self.rows[row]
        example = replace(example, language=example.language or self.language or self.teacher.language)
        if not _normal(example, example.texts.get(TRANSCRIBE, "")):
            return _dropped(example, "empty_text", "no words")
        try:
            waveform = self.rows.waveform(row, rate)
        except ValueError as error:
            return _dropped(example, "unreadable_audio", str(error))
        problem = length_problem(example, len(waveform) / rate)
        return _dropped(example, "duration_mismatch", problem) if problem else Clip(example, waveform)


def record_of(clip: Clip, answer: Timed | NoTimes) -> Record:
    """The record of an answer. Words without a time of their own are no words with times: the utterance is dropped."""
    if isinstance(answer, NoTimes):
        return _dropped(clip.example, "no_times", str(answer))
    words = tuple(
        replace(
            word,
            start=round(word.start, DIGITS),
            end=round(word.end, DIGITS),
            confidence=round(word.confidence, 4),
        )
        for word in answer.words
    )
    problem = timing_problem(words)
    if problem is not None:
        return _dropped(clip.example, "no_times", problem)
    return Record(clip.example.id, words, word_error_rate(clip.example, answer.recognised))


def timing_problem(words: Sequence[SpokenWord]) -> str | None:
    """A message about the first word without length, or that begins before its predecessor; None where all are right."""
    before = 0.0
    for word in words:
        if word.end <= word.start or word.start < before:
            return f"no time was found for {word.text!r} ({word.start:g}–{word.end:g} s)"
        before = word.start
    return None


def word_error_rate(example: Example, recognised: str) -> float:
    """Word error rate of the teacher's text ``recognised``, both texts normalised: word edits per reference word."""
    reference, hypothesis = (_normal(example, text) for text in (example.texts[TRANSCRIBE], recognised))
    return round(align_words([reference], [hypothesis]).error_rate().value / 100, 4)


def _normal(example: Example, text: str) -> str:
    return normalizer(example.language)(text)


def _dropped(example: Example, reason: str, detail: str) -> Record:
    return Record(example.id, reason=reason, detail=f"{example.source}: {detail}")
