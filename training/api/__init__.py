"""The public functions of the library, which the commands call too.

`training` and `polyvox` hand these names on. Each is imported at its first use, so that ``import training`` alone
imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.api.exporting import export_model
    from training.api.runs import FinishedRun, load_config, load_run, train
    from training.api.scoring import evaluate
    from training.base.errors import UserError
    from training.data.example import Example, Hypothesis
    from training.decoding.loading import load_model
    from training.evaluation.scores import Score, Scores
    from training.models.architecture import Architecture
    from training.registry.views import get_dataset_statistics
    from training.transcription.transcriber import Transcriber, transcribe
    from training.transcription.transcript import Transcript

__all__ = [
    "Architecture",
    "Example",
    "FinishedRun",
    "Hypothesis",
    "Score",
    "Scores",
    "Transcriber",
    "Transcript",
    "UserError",
    "evaluate",
    "export_model",
    "get_dataset_statistics",
    "load_config",
    "load_model",
    "load_run",
    "train",
    "transcribe",
]

_MODULES = {
    "training.api.exporting": ("export_model",),
    "training.api.runs": ("FinishedRun", "load_config", "load_run", "train"),
    "training.api.scoring": ("evaluate",),
    "training.data.example": ("Example", "Hypothesis"),
    "training.decoding.loading": ("load_model",),
    "training.base.errors": ("UserError",),
    "training.evaluation.scores": ("Score", "Scores"),
    "training.models.architecture": ("Architecture",),
    "training.registry.views": ("get_dataset_statistics",),
    "training.transcription.transcriber": ("Transcriber", "transcribe"),
    "training.transcription.transcript": ("Transcript",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}
"""Public name → the module that defines it."""


def __getattr__(name: str) -> Any:
    """A public name, imported now. Raises ``AttributeError`` for any other."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
