"""Faults of a sound that only decoding shows, each with its reason for the ledger: one rule for every command.

Reasons: ``missing_audio``, ``unreadable_audio``, ``nan_samples``, ``infinite_samples``, ``duration_mismatch``,
``too_long``, ``too_short``, ``digital_silence``, ``too_quiet``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from training.data import audio
from training.data.audio import AudioError
from training.data.example import AudioRef, Example
from training.data.ledger import Drop
from training.data.lengths import length_drop, length_problem
from training.data.levels import FLOOR_DB, SILENCE_DB, Level, measure
from training.data.sound.downmix import CANCELLED
from training.data.spelling import audible

DECODE_BELOW = 20_000
"""Clips; so many are decoded unasked before they are used: it takes minutes."""


def reason_of(error: AudioError) -> str:
    """The short name of what is wrong."""
    if isinstance(error, audio.NanSamples):
        return "nan_samples"
    if isinstance(error, audio.InfiniteSamples):
        return "infinite_samples"
    return "missing_audio" if "no such file" in str(error) else "unreadable_audio"


def error_drop(example: Example, error: AudioError) -> Drop:
    """The ledger's entry of a row whose sound cannot be read."""
    return Drop(example.id, reason_of(error), f"{example.source}: {error}")


def level_drop(
    example: Example, level: Level, texts: Iterable[str], silence_db: float = SILENCE_DB
) -> Drop | None:
    """Silence where a text is expected. Where ``texts`` hold no words, silence is right."""
    if not any(map(audible, texts)):
        return None
    if level.constant:
        value = "0" if level.peak_db <= FLOOR_DB else "one value: a constant offset"
        return Drop(example.id, "digital_silence", f"{example.source}: all of its samples are {value}")
    if level.loudest_db < silence_db:
        loudest = math.floor(100 * level.loudest_db) / 100  # -60.001 is not "-60.00, at least -60"
        detail = f"{loudest:.2f} dB of full scale in the loudest 25 ms, at least {silence_db:g} dB"
        return Drop(example.id, "too_quiet", f"{example.source}: {detail}")
    return None


def decoded_drop(
    example: Example,
    found: Level | AudioError,
    texts: Iterable[str],
    *,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    silence_db: float = SILENCE_DB,
) -> Drop | None:
    """The reason why a row with completely decoded audio cannot be used; None where it can be used.

    found: what `decoded` gives. texts: the row's. The length is the decoded one; headers estimate some.
    """
    if isinstance(found, AudioError):
        return error_drop(example, found)
    if problem := length_problem(example, found.seconds):
        return Drop(example.id, "duration_mismatch", f"{example.source}: {problem}")
    too_long_or_short = length_drop(example, found.seconds, min_seconds, max_seconds)
    return too_long_or_short or level_drop(example, found, texts, silence_db)


def channel_note(example: Example, found: Level | AudioError) -> Drop | None:
    """For the ledger's notes, where one channel was taken because the mean of all would lose what they hold."""
    if isinstance(found, AudioError) or found.channel is None:
        return None
    detail = f"{example.source}: {CANCELLED} channel {found.channel}, which is taken"
    return Drop(example.id, "channels_cancel", detail)


def decoded(ref: AudioRef, silence_db: float = SILENCE_DB) -> Level | AudioError:
    """The stretch, decoded and measured; why it cannot be is an answer, not an exception, so that it can travel."""
    return attempt(lambda: measure(ref, silence_db), ref.path)


def attempt(measuring: Callable[[], Level], name: str) -> Level | AudioError:
    """The result of ``measuring`` for the audio file ``name``, or the error that it raised."""
    try:
        return measuring()
    except AudioError as error:
        return error
    except OSError as error:
        return AudioError(name, f"cannot be read: {error.strerror or error}")
