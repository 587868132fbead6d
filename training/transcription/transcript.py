"""The transcript of a recording and its formats: text, JSON, TSV, subtitles, words with times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.data.example import DecodingQuality, SpokenWord

if TYPE_CHECKING:  # it loads models, which scoring does not
    from training.transcription.spoken_language import SpokenLanguage

LINE_LETTERS, LINES = 42, 2
CUE_SECONDS, CUE_PAUSE = 6.0, 0.8
"""A subtitle holds at most this many letters in this many lines, lasts at most so long, and ends where somebody pauses."""


@dataclass(frozen=True)
class Segment:
    """One window of a transcript, up to the points where it is joined to its neighbours.

    start, end: seconds of the recording. texts: the text of each task. words: words with times, empty where the model
    gives none. confidence: 0 to 1. domain: the predicted domain, where the model was asked to predict it. quality: how the
    text of each task was decoded, for Whisper-type models.
    """

    start: float
    end: float
    texts: Mapping[str, str]
    words: tuple[SpokenWord, ...] = ()
    confidence: float | None = None
    domain: str | None = None
    quality: Mapping[str, DecodingQuality] = field(default_factory=dict)


@dataclass(frozen=True)
class Transcript:
    """All of one recording. ``tasks``: what was asked for; ``text`` is that of the first.

    language: of the speech: given, the model's own, or detected; None where nobody knows it. no_speech: stretches that
    the model was asked about and that it takes for no speech (Whisper's no-speech rule): texts empty, quality set.
    """

    audio: str
    seconds: float
    tasks: tuple[str, ...]
    segments: tuple[Segment, ...]
    confidence: float | None = None
    language: SpokenLanguage | None = None
    no_speech: tuple[Segment, ...] = ()

    @property
    def texts(self) -> dict[str, str]:
        """By task."""
        return {task: " ".join(s.texts[task] for s in self.segments if s.texts[task]) for task in self.tasks}

    @property
    def text(self) -> str:
        return self.texts[self.tasks[0]]

    @property
    def words(self) -> tuple[SpokenWord, ...]:
        """Words with times in seconds of the recording; empty where the model gives none."""
        return tuple(word for segment in self.segments for word in segment.words)

    @property
    def placed(self) -> list[Sequence[SpokenWord]]:
        """Words of each segment. Where the model gives none, the text is spread over the segment, with confidence 0."""
        return [
            segment.words or spread(segment.texts[self.tasks[0]], segment.start, segment.end)
            for segment in self.segments
        ]

    def as_dict(self) -> dict[str, Any]:
        """The transcript as it is written to JSON."""
        return {
            "audio": self.audio,
            "seconds": round(self.seconds, 3),
            "text": self.text,
            **self.texts,
            "language": self.language.code if self.language else None,
            "language_probability": rounded(self.language.probability) if self.language else None,
            "confidence": rounded(self.confidence),
            "segments": [_segment_dict(segment) for segment in self.segments],
            **({"no_speech": [_segment_dict(one) for one in self.no_speech]} if self.no_speech else {}),
        }


def _segment_dict(segment: Segment) -> dict[str, Any]:
    decoding = {task: quality_dict(quality) for task, quality in segment.quality.items()}
    first = next(iter(decoding.values()), {})
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        **segment.texts,
        **({"domain": segment.domain} if segment.domain else {}),
        "confidence": rounded(segment.confidence),
        **first,
        **({"decoding": decoding} if len(decoding) > 1 else {}),
        "words": [word_dict(word) for word in segment.words],
    }


@dataclass(frozen=True)
class Cue:
    """One subtitle."""

    start: float
    end: float
    text: str


def cues(transcript: Transcript) -> list[Cue]:
    """Subtitles: by words where there are times for them, else the text of a segment spread over its length."""
    found = [_cue(group) for words in transcript.placed for group in _groups(words)]
    if not found:
        return []
    return [
        Cue(cue.start, min(max(cue.end, cue.start + 0.1), after.start if after else cue.end + 1.0), cue.text)
        for cue, after in zip(found, [*found[1:], None], strict=True)
    ]


def spread(text: str, start: float, end: float) -> list[SpokenWord]:
    """Words of a text without times, placed between two times by their letters: a guess."""
    words = text.split()
    total = sum(len(word) + 1 for word in words) or 1
    placed, done = [], 0
    for word in words:
        begin, done = done, done + len(word) + 1
        times = [start + (end - start) * share / total for share in (begin, done)]
        placed.append(SpokenWord(text=word, start=times[0], end=times[1], confidence=0.0))
    return placed


def _groups(words: Sequence[SpokenWord]) -> Iterator[list[SpokenWord]]:
    group: list[SpokenWord] = []
    for word in words:
        if group and (
            word.end - group[0].start > CUE_SECONDS
            or word.start - group[-1].end > CUE_PAUSE
            or len(_lines([*group, word])) > LINES
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _lines(words: Sequence[SpokenWord]) -> list[str]:
    lines = [words[0].text]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word.text) > LINE_LETTERS:
            lines.append(word.text)
        else:
            lines[-1] += " " + word.text
    return lines


def _cue(words: Sequence[SpokenWord]) -> Cue:
    return Cue(words[0].start, words[-1].end, "\n".join(_lines(words)))


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def word_dict(word: SpokenWord) -> dict[str, Any]:
    """A word as JSON has it."""
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
    }


def quality_dict(quality: DecodingQuality) -> dict[str, Any]:
    """As it is written to JSON, under the names of Whisper's own output."""
    found: dict[str, Any] = {
        "temperature": quality.temperature,
        "avg_logprob": round(quality.log_probability, 4),
        "compression_ratio": round(quality.compression_ratio, 4),
    }
    if quality.no_speech is not None:
        found["no_speech_prob"] = round(quality.no_speech, 4)
    if quality.suspect is not None:
        found["suspect"] = quality.suspect
    if quality.uncut is not None:
        found["uncut"] = quality.uncut
    return found
