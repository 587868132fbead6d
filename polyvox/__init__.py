"""The objects of `training`, under the name of the distribution: ``import polyvox as pv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import training
from training import __version__

if TYPE_CHECKING:
    from training.api import *  # noqa: F403

__all__ = [*training.__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """A public name of `training`, imported now. Raises ``AttributeError`` for any other."""
    if name not in training.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(training, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
