"""Transcripts in the formats of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from training.data.example import TRANSCRIBE, SpokenWord
from training.models.architecture import AUTO
from training.serving.dispatcher import UNKNOWN
from training.serving.fields import ParsedRequest
from training.serving.options import Abilities
from training.transcription.formats import as_srt, as_vtt
from training.transcription.transcript import Segment, Transcript, rounded

MEDIA_TYPES = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def rendered(
    transcript: Transcript, question: ParsedRequest, abilities: Abilities, notes: Sequence[str]
) -> str:
    """The body of the answer."""
    if question.response_format == "text":
        return transcript.text + "\n"
    if question.response_format == "srt":
        return as_srt(transcript)
    if question.response_format == "vtt":
        return as_vtt(transcript)
    if question.response_format == "json":
        return json.dumps({"text": transcript.text}, ensure_ascii=False)
    return json.dumps(verbose(transcript, question, abilities, notes), ensure_ascii=False)


def verbose(
    transcript: Transcript, question: ParsedRequest, abilities: Abilities, notes: Sequence[str]
) -> dict[str, Any]:
    """``verbose_json``: what the model does not know is null.

    Ours beside OpenAI's: ``language_code``, ``language_probability``, ``confidence``, ``notes`` (what was done to the
    sound).
    """
    task = question.asked.options.task
    code = written_language(transcript, task, abilities)
    spoken = transcript.language
    found: dict[str, Any] = {
        "task": task,
        "language": None if code is None else abilities.language_names.get(code, code),
        "language_code": code,
        "language_probability": rounded(spoken.probability) if spoken and task == TRANSCRIBE else None,
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
        "confidence": rounded(transcript.confidence),
        "notes": list(notes),
    }
    if "segment" in question.granularities:
        found["segments"] = [_segment(n, one, task) for n, one in enumerate(transcript.segments)]
    if "word" in question.granularities:
        found["words"] = [word(one) for one in transcript.words]
    return found


def written_language(transcript: Transcript, task: str, abilities: Abilities) -> str | None:
    """The language of the text: a translation is in the model's target language. None where nobody knows it."""
    if task == TRANSCRIBE:
        return None if transcript.language is None else transcript.language.code
    return _known(abilities.languages[1])


def expected_language(question: ParsedRequest, abilities: Abilities) -> str | None:
    """The language of a text that is still to come; None where it has to be detected, or nobody knows it."""
    if question.asked.options.task == TRANSCRIBE:
        return _known(question.asked.language or abilities.languages[0])
    return _known(abilities.languages[1])


def _known(code: str) -> str | None:
    return None if code in (AUTO, UNKNOWN) else code


def _segment(number: int, segment: Segment, task: str) -> dict[str, Any]:
    quality = segment.quality.get(task)
    return {
        "id": number,
        "seek": None,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.texts[task],
        "tokens": None,
        "temperature": None if quality is None else quality.temperature,
        "avg_logprob": None if quality is None else round(quality.log_probability, 4),
        "compression_ratio": None if quality is None else round(quality.compression_ratio, 4),
        "no_speech_prob": None if quality is None else rounded(quality.no_speech),
        "confidence": rounded(segment.confidence),
        "suspect": None if quality is None else quality.suspect,
        **({"domain": segment.domain} if segment.domain else {}),
    }


def word(one: SpokenWord) -> dict[str, Any]:
    """A word with times in seconds."""
    return {
        "word": one.text,
        "start": round(one.start, 3),
        "end": round(one.end, 3),
        "confidence": round(one.confidence, 4),
    }
