"""Marks of segments whose text is not to be trusted, and what a person is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from training.data.example import NO_SPEECH, REPETITION, STEADY, UNCERTAIN, DecodingQuality
from training.decoding.repetition import LONGEST_PHRASE, PHRASE_RUNS, loops
from training.transcription.transcript import Segment, Transcript


def with_repeated_marked(segments: Sequence[Segment]) -> list[Segment]:
    """The segments; those marked whose text follows itself so often that together they are a loop.

    A model that invents a phrase where nobody speaks writes the same one for each window. Nothing is cut: several windows
    may really say the same.
    """
    marked = list(segments)
    for start, end, task in _runs(segments):
        if _is_loop(segments[start].texts[task], end - start):
            for n in range(start, end):
                marked[n] = _marked(marked[n], task)
    return marked


def with_steady_marked(
    quality: Mapping[str, DecodingQuality], texts: Mapping[str, str]
) -> dict[str, DecodingQuality]:
    """The qualities by task of one window whose level is as steady as that of noise: those of texts that passed are marked.

    A model may be sure of what it invents for noise, so that no threshold of its probabilities finds it.
    """
    return {
        task: replace(one, suspect=STEADY) if texts[task] and one.suspect is None else one
        for task, one in quality.items()
    }


def lines(transcript: Transcript) -> Iterator[str]:
    """What a person is told of texts that are not to be trusted.

    Args:
        transcript: of one recording.

    Returns:
        A line for each text that repeats itself; for each task one line for all uncertain texts, one for all of steady sounds,
        and one for all that were left out.
    """
    for segment in transcript.segments:
        for task, text in segment.texts.items():
            if (line := _repetition(segment, task, text)) is not None:
                yield f"{transcript.audio}: {line}"
    for task in transcript.tasks:
        uncertain = _suspects(transcript.segments, task, UNCERTAIN)
        if uncertain:
            yield (
                f"{transcript.audio}: {_places(uncertain)}: uncertain text ({task}), less probable than "
                "--logprob_threshold at every temperature"
            )
        steady = _suspects(transcript.segments, task, STEADY)
        if steady:
            yield (
                f"{transcript.audio}: {_places(steady)}: text for a steady sound ({task}), such as noise or hum; probably nobody "
                "speaks there"
            )
        left_out = _suspects([*transcript.segments, *transcript.no_speech], task, NO_SPEECH)
        if left_out:
            yield (
                f"{transcript.audio}: {_places(left_out)}: text left out ({task}), because the model takes the sound for no "
                "speech (--no_speech_threshold none keeps it)"
            )


def _repetition(segment: Segment, task: str, text: str) -> str | None:
    """The line of one text; None where it does not repeat itself. Texts of unknown quality are looked at here."""
    quality = segment.quality.get(task)
    repeats = loops(text) if quality is None else quality.suspect == REPETITION
    if not repeats:
        return None
    cut = "left as it is" if quality is None or quality.uncut is None else "cut after the first time"
    return (
        f"{_span(segment)}: the text repeats itself ({task}; {cut}); what is said there may be something else"
    )


def _suspects(segments: Sequence[Segment], task: str, kind: str) -> list[Segment]:
    """The segments with such a text of the task, by time."""
    found = [one for one in segments if task in one.quality and one.quality[task].suspect == kind]
    return sorted(found, key=lambda one: one.start)


def _places(segments: Sequence[Segment]) -> str:
    more = f" and {len(segments) - 1:,} more" if len(segments) > 1 else ""
    return f"{_span(segments[0])}{more}"


def _span(segment: Segment) -> str:
    return f"{_clock(segment.start)} to {_clock(segment.end)}"


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


def _is_loop(text: str, times: int) -> bool:
    """Whether a text that comes so often in a row is a loop; a long one is no phrase of `loops` any more."""
    return loops(" ".join([text] * times)) or (times >= PHRASE_RUNS and len(text.split()) > LONGEST_PHRASE)


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
