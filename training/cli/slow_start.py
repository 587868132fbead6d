"""A line for who waits at a terminal while torch and transformers are imported, which takes seconds on a slow disk."""

from __future__ import annotations

import sys
import threading

PATIENCE = 2.0
"""Seconds after which it is said."""
SLOW = (
    "torch",
    "transformers",
    "datasets",
    "librosa",
    "accelerate",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
)


def announce() -> threading.Timer | None:
    """Start the clock; None where standard error is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    timer = threading.Timer(PATIENCE, _say)
    timer.daemon = True
    timer.start()
    return timer


def importing() -> str | None:
    """The package of `SLOW` whose import has begun and not ended; None where there is none."""
    return next((name for name in SLOW if _begun(name)), None)


def _begun(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _say() -> None:
    if (name := importing()) is not None:
        print(f"loading {name} …", file=sys.stderr, flush=True)
