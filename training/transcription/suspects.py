"""Marks of segments whose text is not to be trusted, and what a person is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from training.data.example import REPETITION, DecodingQuality
from training.decoding.repetition import loops
from training.transcription.transcript import Segment, Transcript


def with_repeated_marked(segments: Sequence[Segment]) -> list[Segment]:
    """The segments; those marked whose text follows itself so often that together they are a loop.

    A model that invents a phrase where nobody speaks writes the same one for each window. Nothing is cut: several windows
    may really say the same.
    """
    marked = list(segments)
    for start, end, task in _runs(segments):
        if loops(" ".join(segment.texts[task] for segment in segments[start:end])):
            for n in range(start, end):
                marked[n] = _marked(marked[n], task)
    return marked


def lines(transcript: Transcript) -> Iterator[str]:
    """A line for each segment whose text repeats itself at every temperature."""
    for segment in transcript.segments:
        for task, quality in segment.quality.items():
            if quality.suspect == REPETITION:
                cut = "cut after the first time" if quality.uncut is not None else "left as it is"
                yield (
                    f"{transcript.audio}: {_clock(segment.start)} to {_clock(segment.end)}: the text repeats itself "
                    f"({task}; {cut}); what is said there may be something else"
                )


def _runs(segments: Sequence[Segment]) -> Iterator[tuple[int, int, str]]:
    """(first, end, task) of segments with the same text, two at least, whose decoding is known."""
    for task in segments[0].texts if segments else ():
        start = 0
        for end in range(1, len(segments) + 1):
            if end < len(segments) and _same(segments[start], segments[end], task):
                continue
            if end - start > 1:
                yield start, end, task
            start = end


def _same(one: Segment, other: Segment, task: str) -> bool:
    return task in one.quality and task in other.quality and one.texts[task] == other.texts[task] != ""


def _marked(segment: Segment, task: str) -> Segment:
    quality: Mapping[str, DecodingQuality] = {
        **segment.quality,
        task: replace(segment.quality[task], suspect=REPETITION),
    }
    return replace(segment, quality=quality)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
