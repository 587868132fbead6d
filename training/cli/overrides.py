"""``key=value`` on the command line of commands that use a trained model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.base.errors import UserError
from training.base.nearest import did_you_mean

_KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+=")
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def is_override(word: str) -> bool:
    """Whether a word of a command line is ``block.key=value`` and no file of that name."""
    return _KEY.match(word) is not None and not Path(word).exists()


def as_options(given: Sequence[str], options: Mapping[str, str | Mapping[bool, str | None]]) -> list[str]:
    """The command line with each ``key=value`` in the form of the option that the key stands for.

    Args:
        given: words of the command line.
        options: key → the option that takes its value, or for true and false the switch (None: the default).

    Raises:
        UserError: a key that this command has no use for.
    """
    told: list[str] = []
    for word in given:
        if not is_override(word):
            told.append(word)
            continue
        key, _, value = word.partition("=")
        if key not in options:
            raise UserError(
                f"{word}: this command has no use for the key {key}{did_you_mean(key, options)} "
                f"(it takes {', '.join(options)})"
            )
        told += _option(word, options[key], value)
    return told


def _option(word: str, option: str | Mapping[bool, str | None], value: str) -> list[str]:
    if isinstance(option, str):
        return [f"{option}={value}"]
    if value.lower() not in (*_YES, *_NO):
        raise UserError(f"{word}: the value must be true or false")
    switch = option[value.lower() in _YES]
    return [] if switch is None else [switch]
