"""What ``session.update`` asks for, in OpenAI's newer form (``audio.input``) or older one (``input_audio_…``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.serving.errors import ApiError

RATES = (8_000, 48_000)
USUAL_RATE = 24_000
"""Of OpenAI's ``pcm16``; ours can be told another one."""
PAUSES = (200, 5_000)
"""Milliseconds."""
KNOWN = ("model", "language", "prompt", "hot_words", "beam_width", "domain")


def live_settings(
    session: Mapping[str, Any], before: Mapping[str, Any], rate: int, pause: float
) -> tuple[dict[str, Any], int, float]:
    """The settings after an update.

    Args:
        session: of the event.
        before: the fields as they are, see `KNOWN`.
        rate: of the sound, in Hz, as it is.
        pause: seconds of silence that end a window, as they are.

    Returns:
        The same three as they are asked for.

    Raises:
        ApiError: there is something that is not taken.
    """
    input_ = _object(_object(session.get("audio")).get("input"))
    asked = _object(input_.get("transcription", session.get("input_audio_transcription")))
    turns = _object(input_.get("turn_detection", session.get("turn_detection")))
    milliseconds = turns.get("silence_duration_ms", 1000 * pause)
    if not _is_number(milliseconds) or not PAUSES[0] <= milliseconds <= PAUSES[1]:
        raise ApiError(
            400,
            f"silence_duration_ms: from {PAUSES[0]} to {PAUSES[1]}",
            param="turn_detection",
            code="invalid_event",
        )
    settings = {**before, **{key: asked[key] for key in KNOWN if key in asked}}
    return settings, _rate(input_.get("format", session.get("input_audio_format")), rate), milliseconds / 1000


def _rate(format_: Any, rate: int) -> int:
    if isinstance(format_, dict):
        if format_.get("type", "audio/pcm") != "audio/pcm":
            raise ApiError(400, "format: audio/pcm alone", param="format", code="invalid_audio")
        rate = format_.get("rate", rate)
    elif format_ not in (None, "pcm16"):
        raise ApiError(
            400, "input_audio_format: pcm16 alone", param="input_audio_format", code="invalid_audio"
        )
    if not isinstance(rate, int) or isinstance(rate, bool) or not RATES[0] <= rate <= RATES[1]:
        raise ApiError(
            400,
            f"rate: from {RATES[0]} to {RATES[1]} (got {str(rate)[:20]})",
            param="rate",
            code="invalid_audio",
        )
    return rate


def form_fields(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The settings as the fields of a form. A list of words is a field that stands several times.

    Raises:
        ApiError: a value is neither a text nor a number, nor a list of texts where there may be several.
    """
    found: dict[str, list[str]] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name == "hot_words" and isinstance(value, list) and all(isinstance(one, str) for one in value):
            found[name] = value
        elif isinstance(value, str) or _is_number(value):
            found[name] = [str(value)]
        else:
            what = "a text, or a list of texts" if name == "hot_words" else "a text or a number"
            raise ApiError(422, f"{name}: must be {what}", param=name, code="invalid_field")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}
