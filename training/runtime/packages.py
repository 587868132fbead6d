"""Packages that only exported folders need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from training.base.errors import UserError


def needed(package: str, extra: str) -> Any:
    """The package, imported. Raises `UserError` that names the extra of polyvox that has it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} is not installed: pip install 'polyvox[{extra}]', or pip install {package}"
        ) from error
