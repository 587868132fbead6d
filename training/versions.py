"""What the figures of a run depend on beside its configuration and its data."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of those that decide about figures."""
    names = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "sacrebleu", "jiwer", "numpy")
    return {
        "polyvox": version("polyvox"),
        "python": platform.python_version(),
        **{n: version(n) for n in names},
    }
