"""Makes the transcript of a recording of the hypotheses of its windows. Imports no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from training.data.example import NO_SPEECH, TRANSCRIBE, Hypothesis, SpokenWord, mean_confidence
from training.transcription.recordings import Recording
from training.transcription.spoken_language import SpokenLanguage
from training.transcription.stitching import TIMED_TOLERANCE, join
from training.transcription.suspects import with_repeated_marked, with_steady_marked
from training.transcription.transcript import Segment, Transcript, spread
from training.transcription.windows import Window


def assemble(
    recording: Recording,
    hypotheses: Sequence[Mapping[str, Hypothesis]],
    *,
    tasks: tuple[str, ...],
    timed: bool,
    language: SpokenLanguage | None,
) -> Transcript:
    """The transcript of a recording.

    Args:
        recording: its windows.
        hypotheses: of each window, by task.
        tasks: those that were decoded.
        timed: whether the model gives words with times.
        language: of the speech; None: unknown.

    Returns:
        Its text, segments and, where the model gives them, words with times in seconds and confidence.
    """
    segments, empty = [], []
    for segment in segments_of(recording.windows, hypotheses, tasks=tasks, timed=timed):
        if any(segment.texts.values()):
            segments.append(segment)
        elif any(one.suspect == NO_SPEECH for one in segment.quality.values()):
            empty.append(segment)
    every = [word for segment in segments for word in segment.words]
    return Transcript(
        recording.path,
        recording.seconds,
        tasks,
        tuple(with_repeated_marked(segments)),
        mean_confidence(every),
        _given(language) if not segments and _steady(recording, empty) else language,
        tuple(empty),
    )


def segments_of(
    windows: Sequence[Window],
    hypotheses: Sequence[Mapping[str, Hypothesis]],
    *,
    tasks: tuple[str, ...],
    timed: bool,
) -> list[Segment]:
    """A segment for each window, also where it has no text; see `assemble`."""
    stitched = {
        name: stitch(windows, [by_task[name] for by_task in hypotheses], timed=timed and name == TRANSCRIBE)
        for name in tasks
    }
    segments = []
    for n in range(len(windows)):
        texts = {name: " ".join(word.text for word in words[n]) for name, words in stitched.items()}
        known = timed and _has_times(hypotheses[n][TRANSCRIBE])
        words = tuple(stitched[TRANSCRIBE][n]) if known else ()
        start, end = borders(windows, n)
        quality = {name: one.quality for name, one in hypotheses[n].items() if one.quality is not None}
        if windows[n].steady:
            quality = with_steady_marked(quality, texts)
        domain = hypotheses[n][tasks[0]].domain
        segments.append(Segment(start, end, texts, words, mean_confidence(words), domain, quality))
    return segments


def _steady(recording: Recording, left_out: Sequence[Segment]) -> bool:
    """Whether text was left out, and all windows have the level of noise or hum: nobody speaks there."""
    return bool(left_out) and all(window.steady for window in recording.windows)


def _given(language: SpokenLanguage | None) -> SpokenLanguage | None:
    """None for a detected language: where nobody speaks, there is no language to tell."""
    return None if language is None or language.probability is not None else language


def stitch(
    windows: Sequence[Window], hypotheses: Sequence[Hypothesis], *, timed: bool
) -> list[list[SpokenWord]]:
    """Words of each window, times in seconds of the recording; where windows overlap each word once.

    Hypotheses without times get guessed ones, which only serve to join them.
    """
    known = [timed and _has_times(one) for one in hypotheses]
    placed = [
        _shifted(one.words, window.start) if has_times else spread(one.text, window.start, window.end)
        for window, one, has_times in zip(windows, hypotheses, known, strict=True)
    ]
    for n, window in enumerate(windows):
        if window.stitch_at is None:
            continue
        both_known = known[n - 1] and known[n]
        tolerance = TIMED_TOLERANCE if both_known else 1.5 * (windows[n - 1].end - window.start)
        both = join(placed[n - 1], placed[n], window.stitch_at, tolerance)
        kept = sum(1 for word in placed[n - 1] if any(word is other for other in both))
        placed[n - 1], placed[n] = both[:kept], both[kept:]
    return placed


def _has_times(hypothesis: Hypothesis) -> bool:
    """Whether the words have times: a text without words needs none."""
    return bool(hypothesis.words) or not hypothesis.text


def borders(windows: Sequence[Window], n: int) -> tuple[float, float]:
    """Start and end of a window in seconds, without the parts that belong to its neighbours."""
    start = windows[n].stitch_at
    end = windows[n + 1].stitch_at if n + 1 < len(windows) else None
    return windows[n].start if start is None else start, windows[n].end if end is None else end


def _shifted(words: Sequence[SpokenWord], by: float) -> list[SpokenWord]:
    return [replace(word, start=word.start + by, end=word.end + by) for word in words]
