"""Bounds on the length of a clip, their tolerance, and the message for a clip outside them."""

from __future__ import annotations

from training.data.example import Example
from training.data.ledger import Drop

LENGTH_TOLERANCE = 0.01
"""Seconds by which a clip may pass a bound on its length, everywhere: encoders pad, tables round. A model that takes no
more than its bound gets the clip trimmed to it (`training.models.common.log_mels.log_mel`)."""

TOLERANCE_SECONDS = 0.5
TOLERANCE_SHARE = 0.05
"""Stated and real duration may differ by the larger of the two: beyond that, text and sound do not belong together."""

_ROUNDING = 1e-4
"""Seconds: a sample more or less, which resampling gives; and 30.01 − 30 is not 0.01 in floating point."""


def is_too_long(seconds: float, most: float) -> bool:
    """Whether a clip of ``seconds`` is longer than ``most`` by more than `LENGTH_TOLERANCE`."""
    return seconds - most > LENGTH_TOLERANCE + _ROUNDING


def is_too_short(seconds: float, least: float) -> bool:
    """Whether a clip of ``seconds`` is shorter than ``least`` by more than `LENGTH_TOLERANCE`."""
    return least - seconds > LENGTH_TOLERANCE + _ROUNDING


def length_problem(example: Example, seconds: float) -> str | None:
    """A message about a clip whose real length is ``seconds``; None where it agrees with the stated length or none is stated."""
    if example.duration is None:
        return None
    if abs(seconds - example.duration) <= max(TOLERANCE_SECONDS, TOLERANCE_SHARE * example.duration):
        return None
    return f"the sound lasts {seconds:.3f} s, the manifest says {example.duration:.3f} s"


def stated_drop(example: Example, most: float) -> Drop | None:
    """``too_long`` by what the row says of itself, before its file is opened."""
    if example.duration is None or example.duration <= most + TOLERANCE_SECONDS:
        return None
    return too_long(example, example.duration, most)


def length_drop(example: Example, seconds: float, least: float, most: float) -> Drop | None:
    """``too_long`` or ``too_short`` for a clip of ``seconds``; None for one between ``least`` and ``most``."""
    if is_too_long(seconds, most):
        return too_long(example, seconds, most)
    if is_too_short(seconds, least):
        return Drop(example.id, "too_short", f"{example.source}: {seconds:.3f} s, at least {least:g} s")
    return None


def too_long(example: Example, seconds: float, most: float) -> Drop:
    """The ledger's entry of a clip that is longer than ``most`` seconds."""
    detail = f"{seconds:.3f} s, at most {most:g} s: cut it into utterances (columns start and end)"
    return Drop(example.id, "too_long", f"{example.source}: {detail}")
