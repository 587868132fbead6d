"""A transcript as text: plain, JSON, subtitles, tables."""

from __future__ import annotations

import json
from collections.abc import Callable

from training.transcription.transcript import Transcript, cues
from training.transcription.word_formats import as_ctm, as_textgrid, as_words


def as_txt(transcript: Transcript) -> str:
    """One line for each task."""
    return "".join(f"{text}\n" for text in transcript.texts.values())


def as_json(transcript: Transcript) -> str:
    """An object on one line."""
    return json.dumps(transcript.as_dict(), ensure_ascii=False) + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip."""
    return "".join(
        f"{n}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for n, cue in enumerate(cues(transcript), start=1)
    )


def as_vtt(transcript: Transcript) -> str:
    """WebVTT; the characters that it gives a meaning are escaped."""
    escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    body = "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text.translate(escape)}\n\n"
        for cue in cues(transcript)
    )
    return f"WEBVTT\n\n{body}"


def as_tsv(transcript: Transcript) -> str:
    """A row for each segment: audio, start, end, confidence, a text for each task."""
    return "".join(
        "\t".join(
            [
                transcript.audio,
                f"{segment.start:.3f}",
                f"{segment.end:.3f}",
                "" if segment.confidence is None else f"{segment.confidence:.4f}",
                *(" ".join(text.split()) for text in segment.texts.values()),
            ]
        )
        + "\n"
        for segment in transcript.segments
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": as_txt,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "tsv": as_tsv,
    "words": as_words,
    "ctm": as_ctm,
    "textgrid": as_textgrid,
}


def _clock(seconds: float, mark: str) -> str:
    milliseconds = max(0, round(1000 * seconds))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
