"""One file for both phases of VoxLM, as a guide prints it: ``phase1`` and ``phase2``, splits of LibriSpeech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.config.flat import NOWHERE, putter
from training.config.merge import ALIASES, at
from training.config.schema import KeyPath, Training
from training.config.source import Layer, Mistake

PHASES = {"phase1": 1, "phase2": 2}
SHORT = {"epochs": "num_train_epochs"}
"""Names in a phase's block that are other keys of ``training``."""
PLACES: dict[KeyPath, KeyPath] = {
    ("model", "name"): ("output", "experiment_name"),
    ("model", "llm_model"): ("model", "llm"),
    ("model", "lora_r"): ("training", "lora", "r"),
    ("data", "data_dir"): ("data", "librispeech", "root"),
    ("data", "train_split"): ("data", "librispeech", "train"),
    ("data", "val_split"): ("data", "librispeech", "dev"),
}
"""The guide's key → ours."""
USE_LORA: KeyPath = ("model", "use_lora")
MARKS = ("audio_encoder", "llm_model")
"""Keys of ``model`` that no other architecture has."""


def unfold(layers: Sequence[Layer]) -> list[Mistake]:
    """Bring the guide's keys to their places, and into ``training`` what the block of the run's phase says.

    Within a file a phase's block decides over the same key beside it; a later file or override decides over
    both. Of the other phase's block the names are checked.
    """
    mistakes: list[Mistake] = []
    phase = next((value for layer in reversed(layers) if (value := at(layer.data, ("training", "phase")))), 1)
    voxlm = is_voxlm(layers)
    for layer in layers:
        for name, number in PHASES.items():
            _phase(layer, name, number == phase, mistakes)
        if voxlm:
            _places(layer, mistakes)
    return mistakes


def is_voxlm(layers: Sequence[Layer]) -> bool:
    """Whether a layer says so, by the type or by a key that no other architecture has."""
    models = [model for layer in layers if isinstance(model := layer.data.get("model"), dict)]
    return any(model.get("type") == "voxlm" or any(key in model for key in MARKS) for model in models)


def _places(layer: Layer, mistakes: list[Mistake]) -> None:
    put = putter(layer, mistakes)
    for old, new in PLACES.items():
        block = layer.data.get(str(old[0]))
        if isinstance(block, dict) and old[1] in block:
            put(old, new, block.pop(old[1]))
    model = layer.data.get("model")
    if isinstance(model, dict) and "use_lora" in model:
        wanted = model.pop("use_lora")
        if not isinstance(wanted, bool):
            text = f"must be true or false (got {wanted!r})"
            mistakes.append(Mistake(layer.place(USE_LORA, NOWHERE), USE_LORA, text))
        put(USE_LORA, ("training", "trainable"), "lora" if wanted else "all")


def _phase(layer: Layer, name: str, chosen: bool, mistakes: list[Mistake]) -> None:
    training = layer.data.get("training")
    if not isinstance(training, dict) or name not in training:
        return
    path: KeyPath = ("training", name)
    block = training.pop(name) or {}
    if not isinstance(block, dict):
        text = f"must be a block of keys of training (got {block!r})"
        mistakes.append(Mistake(layer.place(path, NOWHERE), path, text))
        return
    for key, value in block.items():
        new = SHORT.get(key, key)
        if chosen:
            training[new], layer.places[("training", new)] = value, layer.place((*path, key), NOWHERE)
        elif not _is_known(new):
            text = f"unknown key (got {value!r})"
            mistakes.append(Mistake(layer.place((*path, key), NOWHERE), (*path, key), text))


def _is_known(key: str) -> bool:
    """Whether ``training`` has the key; the fields of transformers are looked at last (a slow import)."""
    if key in Training.model_fields or key in ALIASES:
        return True
    from training.config import verbatim

    return key in verbatim.VerbatimTraining.model_fields


def set_type(given: Layer) -> None:
    """The merged layers' model is a VoxLM where they do not say otherwise."""
    given.data["model"].setdefault("type", "voxlm")
