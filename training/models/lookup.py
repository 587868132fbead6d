"""From the value of ``model.type`` to its architecture: a folder here, an entry point, or ``package.module:Class``."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from training.base.errors import UserError
from training.models.options import ModelOptions

if TYPE_CHECKING:
    from training.models.architecture import Architecture

GROUP = "polyvox.architectures"
"""Entry points of installed packages: name of the architecture → ``package.module:Class``."""


def available() -> tuple[str, ...]:
    """Names that ``model.type`` may have: the folders here, then those of installed packages. Sorted, each once."""
    folder = Path(__file__).parent
    ours = {path.parent.name for path in folder.glob("*/build.py")}
    return (*sorted(ours), *sorted(set(_installed()) - ours))


def options_class(model_type: str) -> type[ModelOptions]:
    """The schema of the ``model:`` block. Raises `UserError` for a name that nothing has."""
    if model_type in _ours():
        return importlib.import_module(f"training.models.{model_type}.config").Options
    return load(model_type).Options


def load(model_type: str) -> type[Architecture]:
    """The architecture's class. Raises `UserError` for a name that nothing has, and for what is no architecture."""
    if model_type in _ours():
        return importlib.import_module(f"training.models.{model_type}.build").ARCHITECTURE
    if model_type in (installed := _installed()):
        return _checked(model_type, installed[model_type])
    if ":" in model_type:
        return _checked(model_type, EntryPoint(model_type, model_type, GROUP))
    raise UserError(
        f"model.type: unknown architecture {model_type!r}; choose one of {', '.join(available())}, or name a class as "
        "package.module:Class"
    )


def stock_type(model_type: str) -> str | None:
    """The architecture that loads stock folders of transformers' ``model_type``; None where none does."""
    return next((name for name in available() if model_type in options_class(name).stock_types), None)


def _ours() -> tuple[str, ...]:
    folder = Path(__file__).parent
    return tuple(path.parent.name for path in folder.glob("*/build.py"))


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _checked(name: str, point: EntryPoint) -> type[Architecture]:
    from training.models.architecture import Architecture

    try:
        found = point.load()
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"model.type: {name!r} cannot be imported ({error}); install the package that holds it, or check the name"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Architecture)):
        raise UserError(f"model.type: {name!r} is no subclass of training.Architecture")
    return found
