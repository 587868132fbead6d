"""pydantic's errors in the words of somebody who wrote a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from training.base.nearest import did_you_mean
from training.config.blocks import Inconsistent, KeyPath
from training.config.schema import Config

MISSING = "is missing"
SHOWN = 60
MANY = 8


class Finding(NamedTuple):
    """A mistake whose place in the files is still to be looked up."""

    key: KeyPath
    text: str


def findings(error: ValidationError, values: Any, model: type[BaseModel]) -> list[Finding]:
    """One finding per key, in pydantic's order; the branches of a union are joined by "or"."""
    texts: dict[KeyPath, list[str]] = {}
    tails: dict[KeyPath, str] = {}
    for one in error.errors(include_url=False):
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, Inconsistent):
            for problem in cause.problems:
                texts.setdefault((*one["loc"], *problem.key), []).append(problem.message)
            continue
        key = _real_path(one["loc"], values, keep_last=one["type"] in ("missing", "extra_forbidden"))
        text, tail = _describe(one, key, model)
        if text not in texts.setdefault(key, []):
            texts[key].append(text)
        tails[key] = tails.get(key) or tail
    return [Finding(key, " or ".join(parts) + tails.get(key, "")) for key, parts in texts.items()]


def unknown_type(model_type: Any, message: str) -> Finding:
    """``model.type`` names no architecture; ``message`` lists those that there are."""
    from training.models import lookup

    text = message.partition(": ")[2] or message
    return Finding(("model", "type"), text + suggestion(str(model_type), lookup.available()))


def refused(key: KeyPath, value: Any, reason: str) -> Finding:
    """A field of `Seq2SeqTrainingArguments` that is decided elsewhere, or gone."""
    return Finding(key, f"{reason} (got {show(value)})")


def show(value: Any) -> str:
    """``repr``, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def suggestion(name: str, choices: Any) -> str:
    """``; did you mean x?`` when a choice is near, else nothing."""
    return did_you_mean(name, choices)


def _describe(error: Any, key: KeyPath, model: type[BaseModel]) -> tuple[str, str]:
    """The message about an error, and its continuation: the value and the nearest valid one."""
    if error["type"] == "missing":
        return MISSING, ""
    if error["type"] == "extra_forbidden":
        return "is not a known key", _suggest_key(str(key[-1]), key[:-1], model)
    got = f" (got {show(error['input'])})"
    if (cause := error.get("ctx", {}).get("error")) is not None and error["type"] == "value_error":
        return str(cause), "" if isinstance(error["input"], dict) else got
    text = re.sub(r"^\w+ should", "should", str(error["msg"]))
    choices = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
    near = suggestion(str(error["input"]), choices)
    if near and len(choices) > MANY:
        text = f"should be one of {len(choices)} names"
    return text, got + near


def _suggest_key(name: str, block: KeyPath, model: type[BaseModel]) -> str:
    siblings = _fields_at(model, block)
    if near := suggestion(name, siblings):
        return near
    if homes := [f"{home}.{name}" for home, names in _blocks(model) if name in names and (home,) != block]:
        return f"; did you mean {homes[0]}?"
    return (
        suggestion(name, [f"{home}.{one}" for home, names in _blocks(model) for one in names])
        if not block
        else ""
    )


def _blocks(model: type[BaseModel]) -> Iterator[tuple[str, list[str]]]:
    for home in Config.model_fields:
        yield home, _fields_at(model, (home,))


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Names of the fields of the block at ``path``; none where it is not a block."""
    current: Any = model
    for key in path:
        field = current.model_fields.get(key) if current is not None else None
        current = None if field is None else _model_in(field.annotation)
    return [] if current is None else list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _real_path(loc: tuple[int | str, ...], values: Any, *, keep_last: bool) -> KeyPath:
    """``loc`` without the names that pydantic adds for the branches of a union."""
    path: list[int | str] = []
    key: Any
    for position, key in enumerate(loc):
        if (isinstance(values, dict) and key in values) or (
            isinstance(values, list) and isinstance(key, int) and key < len(values)
        ):
            values = values[key]
        elif not (keep_last and position == len(loc) - 1):
            continue
        path.append(key)
    return tuple(path)
