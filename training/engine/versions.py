"""Versions that the figures of a run depend on, beside its configuration and its data."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of those that decide about figures."""
    names = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "sacrebleu", "jiwer", "numpy")
    return {
        "polyvox": version("polyvox"),
        "python": platform.python_version(),
        **{n: version(n) for n in names},
    }


def commit() -> str | None:
    """Commit of the checkout that this file belongs to; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
