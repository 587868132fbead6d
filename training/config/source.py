"""YAML files and ``key=value`` overrides as plain data that remembers where each key was written."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from training.base.nearest import path_hint
from training.config.blocks import KeyPath

COMMAND_LINE = "command line"
BASE_KEY = "_base_"


@dataclass(frozen=True)
class Place:
    """A file (or the command line) and a line in it, counted from 1."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """A mistake that the user has to correct, and its place."""

    place: Place
    key: KeyPath
    text: str

    def __str__(self) -> str:
        key = ".".join(map(str, self.key))
        return f"{self.place}: {key}: {self.text}" if key else f"{self.place}: {self.text}"


@dataclass
class Layer:
    """The values of one file or one override. ``places`` has an entry for every key and list item."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    interpolates: bool = True
    """Whether ``${…}`` in a text is an interpolation, whose form is checked."""
    path: Path | None = None
    """The file; None of an override."""

    @property
    def is_profile(self) -> bool:
        """Whether it is a file of a folder ``profiles``: what a kind of hardware decides."""
        return self.path is not None and self.path.parent.name == "profiles"

    def place(self, key: KeyPath, otherwise: Place) -> Place:
        """Where the key, or the nearest block around it, was written."""
        known = (self.places.get(key[:length]) for length in range(len(key), 0, -1))
        return next((place for place in known if place is not None), otherwise)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a scalar: ``no`` is a word, ``1e-4`` a number, a date a text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if re.match(r"0[ox]", text) else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(inf|nan)$", r"\1", str(loader.construct_scalar(node)).lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_file(path: Path, *, interpolates: bool = True) -> Layer:
    """The file's mapping; what is wrong with it stands in ``mistakes`` (nothing is raised)."""
    layer = Layer(interpolates=interpolates, path=path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        layer.mistakes.append(Mistake(Place(str(path)), (), f"no such file{path_hint(path)}"))
        return layer
    except OSError as error:
        layer.mistakes.append(Mistake(Place(str(path)), (), f"cannot be read: {error.strerror or error}"))
        return layer
    except UnicodeDecodeError as error:
        layer.mistakes.append(Mistake(Place(str(path)), (), f"is not UTF-8 text (byte {error.start})"))
        return layer
    value = _parse(text, str(path), (), layer)
    if isinstance(value, dict):
        layer.data = value
    elif value is not None:
        layer.mistakes.append(Mistake(Place(str(path), 1), (), "must hold keys and values"))
    return layer


def read_override(text: str) -> Layer:
    """``training.freeze=[encoder]`` as a layer: the value is YAML, the key a dotted path."""
    layer = Layer()
    place = Place(COMMAND_LINE)
    name, equals, value_text = text.partition("=")
    path: KeyPath = tuple(name.strip().split("."))
    if not equals or not all(path):
        layer.mistakes.append(Mistake(place, (), f"expected key=value (got {text!r})"))
        return layer
    if not value_text.strip():
        layer.mistakes.append(
            Mistake(place, path, f"has no value; write {name}=null for none, {name}=\"''\" for an empty text")
        )
        return layer
    value = _parse(value_text, COMMAND_LINE, path, layer)
    if layer.mistakes:
        return layer
    for depth in range(1, len(path) + 1):
        layer.places[path[:depth]] = place
    for key in reversed(path):
        value = {str(key): value}
    layer.data = value
    return layer


def _parse(text: str, file: str, path: KeyPath, layer: Layer) -> Any:
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _note(node, file, path, layer, frozenset())
        return None if layer.mistakes else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None or file == COMMAND_LINE else mark.line + 1
        layer.mistakes.append(
            Mistake(Place(file, line), path, f"is not valid YAML: {error.problem or error.context}")
        )
    except yaml.YAMLError as error:
        layer.mistakes.append(Mistake(Place(file), path, f"is not valid YAML: {error}".splitlines()[0]))
    except (ValueError, TypeError, RecursionError) as error:
        layer.mistakes.append(Mistake(Place(file), path, f"is not valid YAML: {error}"))
    finally:
        if loader is not None:
            loader.dispose()
    return None


def _place(node: yaml.Node, file: str) -> Place:
    return Place(file) if file == COMMAND_LINE else Place(file, node.start_mark.line + 1)


def _note(node: yaml.Node, file: str, path: KeyPath, layer: Layer, above: frozenset[int]) -> None:
    """Walk the node tree: places of keys and items, duplicate keys, broken interpolations."""
    if id(node) in above:
        layer.mistakes.append(Mistake(_place(node, file), path, "an alias contains itself"))
        return
    above = above | {id(node)}
    for key, at, child in _children(node, path, file, layer):
        inner = (*path, key) if key is not None else path
        if key is not None:
            layer.places[inner] = _place(at, file)
        _note(child, file, inner, layer, above)
    if layer.interpolates and isinstance(node, yaml.ScalarNode) and "${" in str(node.value):
        try:
            OmegaConf.create({"value": node.value})
        except GrammarParseError:
            layer.mistakes.append(
                Mistake(_place(node, file), path, f"broken interpolation (got {node.value!r})")
            )


def _children(
    node: yaml.Node, path: KeyPath, file: str, layer: Layer
) -> Iterator[tuple[str | int | None, yaml.Node, yaml.Node]]:
    """Key (None: a merged mapping), the node whose line counts, and the child node."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((index, child, child) for index, child in enumerate(node.value))
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[Hashable, yaml.Node] = {}
    for key_node, child in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if key_node.tag != "tag:yaml.org,2002:str":
            text = f"a key must be text (got {getattr(key_node, 'value', key_node.tag)!r}); put it in quotes"
            layer.mistakes.append(Mistake(_place(key_node, file), path, text))
            continue
        key = key_node.value
        if key in first:
            text = f"is set twice in this file (first in line {first[key].start_mark.line + 1})"
            layer.mistakes.append(Mistake(_place(key_node, file), (*path, key), text))
        first.setdefault(key, key_node)
        yield key, key_node, child
