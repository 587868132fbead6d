"""Training in phases: of ``training.phase1`` and ``training.phase2`` the block that ``training.phase`` asks for counts, and so
of those in ``augmentation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.config.source import Layer

BLOCKS = {1: "phase1", 2: "phase2"}
WHERE = ("training", "augmentation")


def select(layers: Sequence[Layer]) -> int | None:
    """Put the asked phase's keys into the block around them in each layer, as if they stood there.

    What a later layer says of that block is then stronger, an override on the command line among them. Returns the
    phase, None where no layer names one.
    """
    named = [value for layer in layers if (value := _named(layer)) is not None]
    phase = named[-1] if named else None
    for layer in layers:
        for where in WHERE:
            for number, name in BLOCKS.items():
                _fold(layer, where, name, wanted=number == (phase or 1))
    return phase


def _named(layer: Layer) -> Any:
    for block in ("training", "model"):
        values = layer.data.get(block)
        if isinstance(values, dict) and values.get("phase") is not None:
            return values["phase"]
    return None


def _fold(layer: Layer, where: str, name: str, *, wanted: bool) -> None:
    around = layer.data.get(where)
    block = around.get(name) if isinstance(around, dict) else None
    if not isinstance(around, dict) or not isinstance(
        block, dict
    ):  # absent, or a mistake that the schema names
        return
    del around[name]
    inside = {path: place for path, place in layer.places.items() if path[:2] == (where, name)}
    for path in inside:
        del layer.places[path]
    if wanted:
        _put(block, around)
        layer.places.update({(where, *path[2:]): place for path, place in inside.items() if path[2:]})


def _put(block: dict[str, Any], around: dict[str, Any]) -> None:
    """A mapping adds to the one that is there, anything else replaces it: as a later file does."""
    for key, value in block.items():
        there = around.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            _put(value, there)
        else:
            around[key] = value
