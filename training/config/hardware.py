"""``--hardware NAME`` and ``profile.name: NAME``: a hardware profile, chosen whole.

A profile is a file of ``configs/profiles``. The chosen one takes the place of the profile that the configuration
inherits, in the order of the files; what the ``profile:`` blocks of files before the choice say no longer counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training.base.nearest import did_you_mean
from training.config import shipped
from training.config.profile_names import AUTO, CHOICES
from training.config.source import COMMAND_LINE, Layer, Mistake, Place, read_file, read_override

BY_MEMORY = ((6.5, "rtx2050"), (14.0, "cuda_8gb"), (22.0, "cuda_16gb"), (36.0, "cuda_24gb"), (70.0, "a100"))
"""GiB below which a GPU gets a profile; one with more gets h100. Drivers keep some of what the card's name says."""
NAME = ("profile", "name")
FLAT = "device"
"""A guide's key at the top of a file, for ``profile.device`` (`training.config.compat.flat`)."""
GIB = 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What this machine can compute on.

    Attributes:
        gpu: name of the first GPU; None without one.
        memory_gb: its memory in GiB; None where it is not known.
        bf16: whether it multiplies bfloat16 in hardware.
        mps: whether it is an Apple GPU.
        gpus: number of GPUs.
    """

    gpu: str | None = None
    memory_gb: float | None = None
    bf16: bool = False
    mps: bool = False
    gpus: int = 0

    @property
    def profile(self) -> str:
        """The profile that suits it."""
        if self.mps:
            return "mps"
        if self.gpu is None:
            return "cpu"
        memory = self.memory_gb or 0.0
        return next((name for below, name in BY_MEMORY if memory < below), "h100")

    def __str__(self) -> str:
        if self.mps:
            return "an Apple GPU"
        if self.gpu is None:
            return "no GPU"
        many = f"{self.gpus} × " if self.gpus > 1 else ""
        return f"{many}{self.gpu}, {self.memory_gb or 0:.0f} GiB"

    def overrides(self) -> list[str]:
        """What is known better than in the profile: memory, and the arithmetic of older cards."""
        told = [f"profile.description={self}".replace(",", " with", 1)]
        if self.gpu is None or self.mps:
            return [*told, "profile.memory_gb=null"]
        return [
            *told,
            f"profile.memory_gb={self.memory_gb:.1f}",
            *([] if self.bf16 else ["profile.precision=fp16"]),
        ]


def look() -> Machine:
    """Ask torch, which is imported now."""
    import torch

    if torch.cuda.is_available():
        first = torch.cuda.get_device_properties(0)
        return Machine(first.name, first.total_memory / GIB, first.major >= 8, gpus=torch.cuda.device_count())
    return Machine(mps=bool(torch.backends.mps.is_available()))


def choose(
    layers: Sequence[Layer], hardware: str | None, machine: Callable[[], Machine] = look
) -> list[Layer]:
    """The layers with the chosen profile in its place.

    Args:
        layers: files, deepest base first, then overrides.
        hardware: one of `CHOICES` from the command line; None: what ``profile.name`` says, where it names one of them.
        machine: looks at the machine, for ``auto``.
    """
    files = sum(not _is_override(layer) for layer in layers)
    named = files if hardware is not None else _naming(layers)
    if named is None:
        return list(layers)
    name = _normal(hardware if hardware is not None else layers[named].data["profile"]["name"])
    if name not in CHOICES:
        return _with_mistake(layers, named, name)
    more: list[Layer] = []
    if name == AUTO:
        found = machine()
        name = found.profile
        logger.info(f"hardware auto: profile {name}, because this machine has {found}")
        more = [read_override(one) for one in found.overrides()]
    chosen = [read_file(shipped.folder() / "profiles" / f"{name}.yaml"), *more]
    place = next((n for n, layer in enumerate(layers) if layer.is_profile), min(named, files - 1))
    kept = [_without_profile(layer) if n < named else layer for n, layer in enumerate(layers)]
    if hardware is None:
        del kept[named].data["profile"]["name"]  # auto, or spelt otherwise: the profile's own name counts
        kept[named].places.pop(NAME, None)
    before = [layer for layer in kept[:place] if not layer.is_profile]
    return [*before, *chosen, *(layer for layer in kept[place:] if not layer.is_profile)]


def inherits_profile(layers: Sequence[Layer]) -> bool:
    """Whether a file or an override says anything of the hardware."""
    return any(layer.is_profile or layer.data.get("profile") or layer.data.get(FLAT) for layer in layers)


def contradiction(profile: Any, machine: Machine) -> str | None:
    """What of a configuration's profile this machine is not; None where they agree.

    ``profile``: the checked block (`training.config.blocks.Profile`).
    """
    advice = f"--hardware auto takes the profile {machine.profile}"
    if profile.device == "cpu" and machine.gpu is not None:
        return f"profile {profile.name} trains on the CPU, and this machine has {machine}; {advice}"
    if (
        profile.device != "cuda"
        or machine.gpu is None
        or machine.memory_gb is None
        or profile.memory_gb is None
    ):
        return None
    if profile.memory_gb > 1.1 * machine.memory_gb:
        return (
            f"profile {profile.name} plans {profile.memory_gb:g} GB, and this machine has {machine}; {advice}"
        )
    if profile.memory_gb < 0.6 * machine.memory_gb:
        return (
            f"profile {profile.name} is made for {profile.memory_gb:g} GB, and this machine has {machine}: larger batches "
            f"would fit; {advice}"
        )
    return None


def _naming(layers: Sequence[Layer]) -> int | None:
    """Number of the last layer, other than a profile's file, whose ``profile.name`` chooses a profile."""
    for number in reversed(range(len(layers))):
        layer = layers[number]
        block = layer.data.get("profile")
        if layer.is_profile or not isinstance(block, dict) or not isinstance(block.get("name"), str):
            continue
        name, alone = _normal(block["name"]), set(block) <= {"name", "description"}
        if name in CHOICES:
            return number
        return (
            number
            if alone and (did_you_mean(name, CHOICES) or not inherits_profile([*layers[:number]]))
            else None
        )
    return None


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _with_mistake(layers: Sequence[Layer], named: int, name: str) -> list[Layer]:
    layer = layers[min(named, len(layers) - 1)]
    text = (
        f"no profile is called {name}{did_you_mean(name, CHOICES)} (there are {', '.join(CHOICES)}); a profile of your "
        "own also says device, memory_gb or precision"
    )
    layer.mistakes.append(Mistake(layer.place(NAME, Place(COMMAND_LINE)), NAME, text))
    return list(layers)


def _is_override(layer: Layer) -> bool:
    return any(place.file == COMMAND_LINE for place in layer.places.values()) or layer.path is None


def _without_profile(layer: Layer) -> Layer:
    if not layer.is_profile:
        gone = [key for key in ("profile", FLAT) if layer.data.pop(key, None) is not None]
        layer.places = {path: place for path, place in layer.places.items() if path[0] not in gone}
    return layer
