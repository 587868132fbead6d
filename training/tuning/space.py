"""What is searched: the texts of ``--search`` as dimensions, each with its values as ``key=value`` overrides.

A dimension's text is ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:STEP``, ``KEY=log:LOW:HIGH`` or ``KEY=choice:A,B,…``; a text
with any other value sets the key for every trial.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.config.merge import at
from training.config.source import read_override

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

GRAMMAR = "KEY=LOW:HIGH, KEY=LOW:HIGH:STEP, KEY=log:LOW:HIGH or KEY=choice:A,B,…"
LOG, CHOICE = "log:", "choice:"
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; even in the logarithm with ``log``."""

    key: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False
    """Whole numbers only."""

    def __str__(self) -> str:
        ends = [self.low, self.high] if self.step is None else [self.low, self.high, self.step]
        shown = ":".join(str(int(end)) if self.whole else repr(float(end)) for end in ends)
        return f"{self.key}={LOG if self.log else ''}{shown}"

    @property
    def probes(self) -> list[str]:
        """Overrides that show whether the key takes such values."""
        return [self.override(self.low), self.override(self.high)]

    def override(self, value: Any) -> str:
        """``key=value`` of a drawn value."""
        return f"{self.key}={int(value) if self.whole else repr(float(value))}"

    def holding(self, value: Any) -> float | None:
        """A configuration's value as a drawn one; None where it cannot be drawn."""
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.low <= value <= self.high
        ):
            return None
        if self.step is not None and _remainder(str(self.low), str(value), str(self.step)):
            return None
        if self.whole:
            return int(value) if value == int(value) else None
        return float(value)

    def distribution(self) -> BaseDistribution:
        """The same in Optuna's terms."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)


@dataclass(frozen=True)
class Choice:
    """One of several values, each as the YAML text that it was given as."""

    key: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={CHOICE}{','.join(self.texts)}"

    @property
    def probes(self) -> list[str]:
        """Overrides that show whether the key takes such values: all of them."""
        return [self.override(text) for text in self.texts]

    def override(self, value: Any) -> str:
        """``key=value`` of a drawn value."""
        return f"{self.key}={value}"

    def holding(self, value: Any) -> str | None:
        """A configuration's value as a drawn one; None where it cannot be drawn."""
        path = tuple(self.key.split("."))
        return next((t for t in self.texts if at(read_override(self.override(t)).data, path) == value), None)

    def distribution(self) -> BaseDistribution:
        """The same in Optuna's terms."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)


Dimension = Range | Choice


def parse(texts: Iterable[str]) -> tuple[list[Dimension], list[str]]:
    """The dimensions among the texts of ``--search``, and the texts that set a key for every trial.

    Raises `UserError` for a text that is neither, and for a key that is given twice.
    """
    dimensions: list[Dimension] = []
    fixed: list[str] = []
    for text in texts:
        found = parse_one(text)
        if found is None:
            fixed.append(text)
        elif any(found.key == known.key for known in dimensions):
            raise UserError(f"--search {text}: {found.key} is searched twice; keep one of them")
        else:
            dimensions.append(found)
    return dimensions, fixed


def parse_one(text: str) -> Dimension | None:
    """The dimension that a text describes; None where it sets the key to one value."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        raise UserError(f"--search {text}: expected {GRAMMAR}")
    if value.startswith(CHOICE):
        return _choice(text, key, value.removeprefix(CHOICE))
    parts = value.removeprefix(LOG).split(":")
    if value.startswith(LOG) or (len(parts) > 1 and _NUMBER.fullmatch(parts[0].strip())):
        return _range(text, key, [part.strip() for part in parts], log=value.startswith(LOG))
    return None


def _range(text: str, key: str, parts: list[str], *, log: bool) -> Range:
    wrong = [part for part in parts if not _NUMBER.fullmatch(part) or not math.isfinite(float(part))]
    if wrong:
        raise UserError(f"--search {text}: {wrong[0]!r} is not a number; expected {GRAMMAR}")
    if not 2 <= len(parts) <= 3 - log:
        raise UserError(f"--search {text}: expected {GRAMMAR}")
    low, high, *rest = map(float, parts)
    step = rest[0] if rest else None
    if not low < high:
        raise UserError(f"--search {text}: {parts[0]} is not below {parts[1]}")
    if log and low <= 0:
        raise UserError(f"--search {text}: {parts[0]} has no logarithm; begin above 0")
    if step is not None and (step <= 0 or _remainder(*parts)):
        raise UserError(f"--search {text}: steps of {parts[2]} do not lead from {parts[0]} to {parts[1]}")
    return Range(key, low, high, step, log, whole=all(map(_WHOLE.fullmatch, parts)))


def _remainder(low: str, high: str, step: str) -> Fraction:
    """What is left of the way when no further step fits; of decimals as written, where 0.3 is three times 0.1."""
    return (Fraction(high) - Fraction(low)) % Fraction(step)


def _choice(text: str, key: str, value: str) -> Choice:
    choices = tuple(_split(value))
    if len(choices) < 2 or not all(choices):
        raise UserError(f"--search {text}: give two values or more with commas between them, none empty")
    if len(set(choices)) < len(choices):
        raise UserError(f"--search {text}: a value is there twice")
    for choice in choices:
        for mistake in read_override(f"{key}={choice}").mistakes:
            raise UserError(f"--search {text}: {choice!r} {mistake.text}")
    return Choice(key, choices)


def _split(text: str) -> list[str]:
    """Cut at the commas that stand in no brackets or quotes: ``[a, b],[]`` has two parts."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += 0 if quote else (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def fractions_where_the_key_has_them(
    dimensions: Sequence[Dimension], values: Mapping[str, Any]
) -> list[Dimension]:
    """``training.weight_decay=0:1`` means fractions too, where the configuration's own value is one (0.0)."""
    return [
        replace(one, whole=False)
        if isinstance(one, Range) and isinstance(at(values, tuple(one.key.split("."))), float)
        else one
        for one in dimensions
    ]


def overrides(dimensions: Sequence[Dimension], drawn: Mapping[str, Any]) -> list[str]:
    """``key=value`` texts of a trial's drawn values."""
    return [one.override(drawn[one.key]) for one in dimensions]


def holding(dimensions: Sequence[Dimension], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration's own values as drawn ones; None where the space does not hold them all."""
    found = {one.key: one.holding(at(values, tuple(one.key.split(".")))) for one in dimensions}
    return None if None in found.values() else found
