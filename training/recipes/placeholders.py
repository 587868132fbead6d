"""Placeholders of a recipe: ``{paths.output_dir}`` in a text becomes the value of that name."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from training.base.errors import UserError

_NAME = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*"
_PLACEHOLDER = re.compile(rf"\{{(\{{{_NAME}\}})\}}|\{{({_NAME})\}}")
PATH_PARTS = ("parent", "stem", "name")
"""What may stand behind the name of a path: ``{paths.manifest_path.parent}``."""


@dataclass(frozen=True)
class Scope:
    """Names and their values. A text of ``variables`` may have placeholders of its own."""

    values: Mapping[str, Any]
    variables: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """The value of a dotted name; None behind a null. Raises `UserError` for a name that is not there."""
        first, *rest = name.split(".")
        if first in self.variables:
            found = self._variable(first)
        else:
            found = _child(self.values, first, name, [*self.variables, *self.values])
        for key in rest:
            if found is None:
                return None
            found = _child(found, key, name)
        return found

    def _variable(self, name: str) -> Any:
        raw = self.variables[name]
        if not isinstance(raw, str):
            return raw
        others = {key: value for key, value in self.variables.items() if key != name}
        return Scope(self.values, others).filled(raw)

    def filled(self, text: str) -> Any:
        """The value itself where the text is one placeholder, else the text with all of them replaced.

        Raises `UserError` for an unknown name, and for a null, a list or a mapping inside a longer text.
        """
        whole = _PLACEHOLDER.fullmatch(text)
        if whole and whole[2]:
            return self.value(whole[2])
        return _PLACEHOLDER.sub(lambda found: found[1] or self._inner(found[2]), text)

    def _inner(self, name: str) -> str:
        value = self.value(name)
        if value is None or isinstance(value, (Mapping, list, tuple)):
            kind = "has no value (null)" if value is None else "is not one value"
            raise UserError(f"{{{name}}} {kind}, and stands inside a text")
        return plain(value)

    def text(self, text: str) -> str:
        """The filled text. Raises `UserError` also where it is null, a list or a mapping."""
        value = self.filled(text)
        if value is None or isinstance(value, (Mapping, list, tuple)):
            raise UserError(f"{text} {'has no value (null)' if value is None else 'is not one value'}")
        return plain(value)

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Filled texts; a null is left out, a list adds its items."""
        return [plain(item) for text in texts for item in listed(self.filled(text))]

    def words(self, command: str | Sequence[str | Sequence[str]]) -> list[str]:
        """The words of a command.

        A text is split as a shell would, before its placeholders are filled: a value with spaces stays one word. A
        nested list is an option that is left out where one of its values is null or empty, and that is repeated for
        each item of a mapping, as ``key=value``.
        """
        found: list[str] = []
        for part in [command] if isinstance(command, str) else command:
            if isinstance(part, str):
                for word in _split(part):
                    value = self.filled(word)
                    if value is None:
                        raise UserError(f"{word} has no value (null); put it into a list with its option")
                    found += map(plain, listed(value))
            else:
                found += self._option(part)
        return found

    def _option(self, words: Sequence[str]) -> list[str]:
        values = [self.filled(word) for word in words]
        if any(value is None or value in ("", (), [], {}) for value in values):
            return []
        mapping = next((value for value in values if isinstance(value, Mapping)), None)
        if mapping is None:
            return [plain(item) for value in values for item in listed(value)]
        pairs = [f"{key}={plain(value)}" for key, value in mapping.items()]
        return [pair if value is mapping else plain(value) for pair in pairs for value in values]


def placeholders(text: str) -> Iterator[str]:
    """The names in a text."""
    return (found[2] for found in _PLACEHOLDER.finditer(text) if found[2])


def listed(value: Any) -> list[Any]:
    """A list as it is, nothing for a null, one item for anything else."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def plain(value: Any) -> str:
    """A value as a word of a command: booleans as YAML writes them."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(f"the command {command!r} cannot be split into words: {error}") from error


def _child(found: Any, key: str, name: str, known: Sequence[str] = ()) -> Any:
    if isinstance(found, Mapping):
        if key in found:
            return found[key]
        known = known or list(found)
    elif isinstance(found, (str, Path)) and key in PATH_PARTS:
        return str(getattr(Path(found), key))
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(map(str, known))}" if known else ""
    raise UserError(
        f"unknown placeholder {{{name}}}{f' ({hint})' if hint else ''}; write {{{{{name}}}}} for the text itself"
    )
