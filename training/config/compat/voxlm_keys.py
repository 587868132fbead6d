"""Keys that a guide's file for VoxLM has and no other: each is moved to its place."""

from __future__ import annotations

from training.config.blocks import KeyPath
from training.config.compat.flat import NOWHERE, Put, putter
from training.config.source import Layer, Mistake

LLM: KeyPath = ("model", "llm_model")
NAME: KeyPath = ("model", "name")
USE_LORA: KeyPath = ("model", "use_lora")
PLACES: dict[KeyPath, KeyPath] = {
    LLM: ("model", "llm"),
    ("training", "epochs"): ("training", "num_train_epochs"),
    ("data", "data_dir"): ("data", "librispeech", "root"),
    ("data", "train_split"): ("data", "librispeech", "train"),
    ("data", "val_split"): ("data", "librispeech", "dev"),
}
"""The guide's key → ours. ``epochs`` stands in a phase's block."""


def unfold(layer: Layer, phase: int | None) -> list[Mistake]:
    """Move them, in one file or override whose block of the phase is chosen already (`phases.select`).

    A key that stands in its place too, with another value, is a mistake; another layer may well say otherwise.
    """
    mistakes: list[Mistake] = []
    put = putter(layer, mistakes)
    if _has(layer, LLM):
        _new_model(layer, put, phase)
    for old, new in PLACES.items():
        if _has(layer, old):
            put(old, new, _take(layer, old))
    _adapters(layer, put, phase, mistakes)
    return mistakes


def _new_model(layer: Layer, put: Put, phase: int | None) -> None:
    """A model with a name is a run with that name: ours is a folder. Phase 2 writes into another than phase 1."""
    put(LLM, ("model", "type"), "voxlm")
    if _has(layer, NAME):
        name = _take(layer, NAME)
        put(NAME, ("output", "experiment_name"), f"{name}_phase2" if phase == 2 else name)


def _adapters(layer: Layer, put: Put, phase: int | None, mistakes: list[Mistake]) -> None:
    """LoRA is of phase 1 alone: in phase 2 nothing learns but the aligner."""
    rank: KeyPath = ("model", "lora_r")
    wanted = _take(layer, USE_LORA) if _has(layer, USE_LORA) else None
    r = _take(layer, rank) if _has(layer, rank) else None
    if not isinstance(wanted, bool | None):
        text = f"must be true or false (got {wanted!r})"
        mistakes.append(Mistake(layer.place(USE_LORA, NOWHERE), USE_LORA, text))
    if phase == 2:
        return
    if wanted is not None:
        put(USE_LORA, ("training", "trainable"), "lora" if wanted else "all")
    if r is not None and wanted is not False:
        put(rank, ("training", "lora", "r"), r)


def _has(layer: Layer, key: KeyPath) -> bool:
    block = layer.data.get(str(key[0]))
    return isinstance(block, dict) and key[1] in block


def _take(layer: Layer, key: KeyPath) -> object:
    return layer.data[str(key[0])].pop(key[1])
