"""Layers of configuration into one: merging, second names of keys, interpolation (all by OmegaConf)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from training.config.blocks import MOVED_FROM_MODEL, MOVED_TO_MODEL, KeyPath
from training.config.schema import Config
from training.config.source import Layer, Mistake, Place

OPEN = "???"
NOWHERE = Place("configuration")
ALIASES = {
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "activation_checkpointing": "gradient_checkpointing",
}
"""Names that `Seq2SeqTrainingArguments` has for what ``training`` calls otherwise."""


def merge(layers: Sequence[Layer]) -> Layer:
    """One layer; a later mapping adds to an earlier one, anything else replaces it."""
    merged = Layer()
    for layer in layers:
        data = OmegaConf.merge(OmegaConf.create(merged.data), OmegaConf.create(layer.data))
        merged.data = OmegaConf.to_container(data, resolve=False)  # type: ignore[assignment]
        for path in layer.places:
            if not isinstance(at(merged.data, path), dict):
                merged.places = {p: where for p, where in merged.places.items() if p[: len(path)] != path}
        merged.places.update(layer.places)
    # A block whose keys are all commented out reads as null.
    merged.data = {k: v for k, v in merged.data.items() if v is not None or k not in Config.model_fields}
    return merged


def at(data: Any, path: KeyPath) -> Any:
    """The value under ``path``; None where there is none."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def move_keys(given: Layer) -> list[Mistake]:
    """Bring each key to the one place that is read; two different values for it are a mistake."""
    training = given.data.get("training", {})
    model = given.data.get("model", {})
    if not isinstance(training, dict) or not isinstance(model, dict):
        return []
    mistakes = []
    moves: list[tuple[KeyPath, KeyPath]] = [(("model", key), ("training", key)) for key in MOVED_FROM_MODEL]
    moves += [(("training", key), ("model", key)) for key in MOVED_TO_MODEL]
    moves += [(("training", old), ("training", new)) for old, new in ALIASES.items()]
    blocks = {"training": training, "model": model}
    for old, new in moves:
        block, target = blocks[str(old[0])], blocks[str(new[0])]
        if old[1] not in block:
            continue
        value = block.pop(old[1])
        if value is None:
            continue
        place = given.places.get(old, NOWHERE)
        if target.get(new[1]) is None:
            target[new[1]], given.places[new] = value, place
        elif target[new[1]] != value:
            other = given.places.get(new, NOWHERE)
            text = f"is {value!r} and {'.'.join(map(str, new))} is {target[new[1]]!r} ({other}); keep one of them"
            mistakes.append(Mistake(place, old, text))
    given.data["training"] = training
    if model:
        given.data["model"] = model
    return mistakes


def interpolate(given: Layer, name: str, mistakes: list[Mistake]) -> dict[str, Any]:
    """Schema defaults below, then every ``${…}`` replaced; what cannot be replaced becomes a mistake.

    ``name`` is the experiment's, unless it is given.
    """
    for path in list(_left_open(given.data, ())):
        mistakes.append(Mistake(given.place(path, NOWHERE), path, f"must be given a value (got {OPEN!r})"))
        at(given.data, path[:-1])[path[-1]] = None
    defaults = Config().model_dump(mode="json")
    defaults["output"]["experiment_name"] = name
    if given.data.get("model") is None:
        defaults.pop("model")
    merged = OmegaConf.merge(OmegaConf.create(defaults), OmegaConf.create(given.data))
    _put_suffix(merged)
    return _plain(merged, (), given, mistakes)


def _put_suffix(merged: Any) -> None:
    """``output.suffix`` behind ``output.experiment_name``: once, however often the result is read again."""
    container: Any = OmegaConf.to_container(merged, resolve=False)
    output = container["output"]
    if not isinstance(output, dict):
        return
    name, suffix = output.get("experiment_name"), output.get("suffix")
    # One that names a folder stays where it is, for the schema to refuse.
    if isinstance(name, str) and isinstance(suffix, str) and name and suffix and not set("/\\") & set(suffix):
        merged.output.experiment_name, merged.output.suffix = name + suffix, ""


_UNFILLED = object()


def _left_open(data: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Keys with OmegaConf's mark for "somebody has to say". (Merging would put the schema's default there.)"""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        if value == OPEN:
            yield (*path, key)
        else:
            yield from _left_open(value, (*path, key))


def _plain(node: Any, path: KeyPath, given: Layer, mistakes: list[Mistake]) -> Any:
    if isinstance(node, DictConfig):
        children = {str(key): _child(node, key, (*path, str(key)), given, mistakes) for key in node}
        return {key: value for key, value in children.items() if value is not _UNFILLED}
    if isinstance(node, ListConfig):
        items = [_child(node, index, (*path, index), given, mistakes) for index in range(len(node))]
        return [value for value in items if value is not _UNFILLED]
    return node


def _child(parent: Any, key: Any, path: KeyPath, given: Layer, mistakes: list[Mistake]) -> Any:
    """The value with its interpolations replaced, or `_UNFILLED`."""
    try:
        return _plain(parent[key], path, given, mistakes)
    except (OmegaConfBaseException, RecursionError) as error:
        reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        text = f"cannot be filled in: {reason} (got {at(given.data, path)!r})"
    # A default that cannot be filled in follows from a value that is told by itself.
    if at(given.data, path) is not None:
        mistakes.append(Mistake(given.place(path, NOWHERE), path, text))
    return _UNFILLED
