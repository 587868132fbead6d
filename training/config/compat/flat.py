"""Keys at the top of a file, without a block, as a guide prints them for CTC: each is moved into its block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.config.blocks import KeyPath
from training.config.source import Layer, Mistake, Place

NOWHERE = Place("configuration")

PLACES: dict[str, tuple[str, ...]] = {
    "d_model": ("model.d_model",),
    "num_encoder_layers": ("model.num_encoder_layers",),
    "num_heads": ("model.num_heads",),
    "d_ff": ("model.d_ff",),
    "dropout": ("model.dropout",),
    "sample_rate": ("audio.sample_rate", "model.sample_rate"),
    "n_mels": ("model.n_mels",),
    "n_fft": ("model.n_fft",),
    "hop_length": ("model.hop_length",),
    "batch_size": ("training.batch_size",),
    "num_epochs": ("training.num_train_epochs",),
    "learning_rate": ("training.learning_rate",),
    "weight_decay": ("training.weight_decay",),
    "grad_clip": ("training.max_grad_norm",),
    "grad_accum_steps": ("training.gradient_accumulation_steps",),
    "use_amp": ("training.fp16",),
    "num_workers": ("dataloader.num_workers",),
    "pin_memory": ("dataloader.pin_memory",),
    "device": ("profile.device",),
    "database_path": ("data.registry",),
    "checkpoint_dir": ("output.dir",),
    "log_file": ("output.log_file",),
}
CHANGES = {
    "noise": "noise",
    "volume": "volume",
    "shift": "shift",
    "stretch": "speed",
    "speed": "speed",
    "reverb": "reverb",
}
"""Types of augmentation, as the guide names them, and our blocks."""
ALMOST_ALL = 0.999
"""A share of the run that is not taken for a number of steps."""
ONLY_MODEL = ("d_model", "num_encoder_layers", "num_heads", "d_ff")


def unfold(layer: Layer) -> list[Mistake]:
    """Move every top-level key of `PLACES` and the guide's small blocks, in one file or override.

    A key that stands in its block too, with another value, is a mistake; another layer may well say otherwise.
    """
    mistakes: list[Mistake] = []
    put = putter(layer, mistakes)
    for key, targets in PLACES.items():
        if key in layer.data:
            value = layer.data.pop(key)
            for target in targets:
                put((key,), tuple(target.split(".")), value)
    _blocks(layer, put, mistakes)
    return mistakes


def has_sizes(layer: Layer) -> bool:
    """Whether the layer has sizes of a CTC model without a block."""
    return any(key in layer.data for key in ONLY_MODEL)


def complete(given: Layer, *, ctc: bool) -> list[Mistake]:
    """Complete the merged layers: the model's type where sizes had no block, and shares of the run."""
    mistakes: list[Mistake] = []
    if ctc and isinstance(given.data.setdefault("model", {}), dict):
        given.data["model"].setdefault("type", "ctc")
    _epochs(given, putter(given, mistakes))
    return mistakes


Put = Callable[[KeyPath, KeyPath, Any], None]


def putter(given: Layer, mistakes: list[Mistake]) -> Put:
    """What writes a key in the place of another; where a different value stands there already, that is a mistake."""

    def put(old: KeyPath, new: KeyPath, value: Any) -> None:
        place = given.places.get(old, NOWHERE)
        *above, last = map(str, new)
        block = given.data
        for name in above:
            block = block.setdefault(name, {})
            if not isinstance(block, dict):
                return
        if block.get(last) not in (None, value):
            text = f"is {value!r} and {'.'.join(map(str, new))} is {block[last]!r}; keep one of them"
            mistakes.append(Mistake(place, old, text))
            return
        block[last], given.places[new] = value, place

    return put


def _epochs(given: Layer, put: Put) -> None:
    """Warm-up and validation that are counted in epochs, as shares of the run."""
    training = given.data.get("training") or {}
    epochs = training.get("num_train_epochs", 3) if isinstance(training, dict) else 3
    for key, new in (("warmup_epochs", "warmup_ratio"), ("validate_every", "eval_steps")):
        count = given.data.get(key)
        if isinstance(count, int | float) and isinstance(epochs, int | float) and epochs:
            given.data.pop(key)
            put((key,), ("training", new), min(count / epochs, ALMOST_ALL))


def _blocks(given: Layer, put: Put, mistakes: list[Mistake]) -> None:
    """``early_stopping``, ``wandb`` and the short form of ``augmentation``."""
    stopping = given.data.get("early_stopping")
    if isinstance(stopping, dict) and set(stopping) <= {"enabled", "patience"}:
        given.data.pop("early_stopping")
        if stopping.get("enabled", True):
            put(
                ("early_stopping", "patience"),
                ("training", "early_stopping_patience"),
                stopping.get("patience", 10),
            )
    wandb = given.data.get("wandb")
    if isinstance(wandb, dict) and set(wandb) <= {"enabled", "project", "entity"}:
        given.data.pop("wandb")
        if wandb.get("enabled", True):
            put(("wandb",), ("training", "report_to"), "wandb")
            for name in ("project", "entity"):
                if wandb.get(name) is not None:
                    put(("wandb", name), ("output", f"wandb_{name}"), wandb[name])
    changes = given.data.get("augmentation")
    if isinstance(changes, dict) and {"types", "prob"} & set(changes):
        _augmentation(given, changes, mistakes)


def _augmentation(given: Layer, changes: dict[str, Any], mistakes: list[Mistake]) -> None:
    key: KeyPath = ("augmentation", "types")
    prob, types = changes.pop("prob", 0.5), changes.pop("types", [])
    unknown = [kind for kind in types if kind not in CHANGES]
    if unknown:
        text = f"unknown {unknown[0]!r}; choose of {', '.join(CHANGES)}"
        mistakes.append(Mistake(given.places.get(key, NOWHERE), key, text))
    for kind in types:
        if kind in CHANGES:
            changes.setdefault(CHANGES[kind], {}).setdefault("prob", prob)
            given.places[("augmentation", CHANGES[kind], "prob")] = given.places.get(key, NOWHERE)
