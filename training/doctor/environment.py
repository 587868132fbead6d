"""Python, the packages and their versions, and the programs beside them."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from training.doctor.finding import Finding

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest version of Python that polyvox is made for."""
PACKAGE = "polyvox"
SHOWN = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "soundfile", "librosa")
FOR = {
    "demo": "the demo corpora that espeak-ng speaks",
    "lora": "training.trainable: lora",
    "bnb": "8-bit optimisers on a GPU",
    "wandb": "curves on Weights & Biases",
    "beam": "--search flashlight",
    "postgres": "a data registry in PostgreSQL",
    "vad": "--detector silero",
    "deploy": "polyvox check-deployment with faster-whisper",
    "tune": "polyvox tune",
    "ggml": "polyvox export --format ggml, compared with whisper.cpp",
    "export": "polyvox export",
    "ffmpeg": "mp4, m4a and other containers where the system has no ffmpeg",
}
"""Extra → what it is for."""
DEVELOPERS = ("dev", "docs", "browser")
"""Extras that only work on polyvox itself needs."""


def python() -> Finding:
    """The version of Python, and where it runs."""
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {sys.prefix}"
    low, high = PYTHONS
    if low <= sys.version_info[:2] <= high:
        return Finding("Python", here)
    names = " to ".join(".".join(map(str, one)) for one in PYTHONS)
    return Finding("Python", here, "problem", f"install Python {names} and make a new environment with it")


def version_of(name: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions() -> Finding:
    """polyvox and the packages that figures depend on."""
    found = {name: version_of(name) for name in (PACKAGE, *SHOWN)}
    value = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    if missing := [name for name, version in found.items() if version is None]:
        return Finding(
            "packages", value, "problem", f"install what is missing: {_install('')} ({missing[0]}, …)"
        )
    return Finding("packages", value)


def requirements() -> Finding:
    """Whether all packages are there that polyvox asks for, at the versions that it asks for."""
    wrong = [*_unmet(None)]
    if not wrong:
        return Finding("requirements", "all met")
    return Finding("requirements", "; ".join(wrong), "problem", f"mend the environment: {_install('')}")


def extras() -> Iterator[Finding]:
    """Each extra: whether it is complete, and what it is for."""
    try:
        declared = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in declared:
        if extra in DEVELOPERS:
            continue
        use = FOR.get(extra, "see pyproject.toml")
        wrong = [*_unmet(extra)]
        if wrong:
            yield Finding(
                f"extra {extra}",
                f"not installed ({'; '.join(wrong)})",
                "note",
                f"for {use}: {_install(extra)}",
            )
        else:
            yield Finding(f"extra {extra}", f"installed, for {use}")


def _unmet(extra: str | None) -> Iterator[str]:
    """Requirements of polyvox, or of one of its extras alone, that are not met."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield f"{PACKAGE} is not installed"
        return
    for line in declared:
        wanted = Requirement(line)
        of_extra = "extra" in str(wanted.marker or "")
        if of_extra != (extra is not None) or (
            wanted.marker and not wanted.marker.evaluate({"extra": extra or ""})
        ):
            continue
        there = version_of(wanted.name)
        if there is None:
            yield f"{wanted.name} is missing"
        elif not wanted.specifier.contains(there, prereleases=True):
            yield f"{wanted.name} {there}, wanted {wanted.specifier}"


def _install(extra: str) -> str:
    """The command that installs an extra, from the checkout where this is one."""
    inside = f"[{extra}]" if extra else ""
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return (
            f"pip install -e '{checkout}{inside}'"
            if Path.cwd() != checkout
            else f"pip install -e '.{inside}'"
        )
    return f"pip install '{PACKAGE}{inside}'"


def ffmpeg() -> Finding:
    """The program that decodes mp4, m4a and other containers."""
    try:
        from training.data.sound.ffmpeg import find_ffmpeg
    except ImportError as error:  # a package is missing, which `requirements` tells
        return Finding("ffmpeg", f"not looked for ({error})")
    found = find_ffmpeg()
    if found is None:
        advice = f"install ffmpeg with the system's packages, or {_install('ffmpeg')}; WAV, FLAC, MP3 and OGG need none"
        return Finding("ffmpeg", "not found: mp4, m4a, webm and the like cannot be read", "note", advice)
    return Finding("ffmpeg", found)


def variables() -> Iterator[Finding]:
    """Variables of the environment that change what commands do."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        if (value := os.environ.get(name)) is not None:
            yield Finding(f"${name}", value or "(empty)")


def program(name: str) -> str | None:
    """Where a program lies; None where it is not on the path."""
    return shutil.which(name)
