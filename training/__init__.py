"""Polyvox: speech models of several architectures, one data format, one configuration, one trainer.

::

    import training as pv

    config = pv.load_config("configs/demo_ctc.yaml", ["training.max_steps=20"])
    run = pv.train(config)
    scores = pv.evaluate(run)
    words = pv.Transcriber(run)("talk.mp3").words

``import polyvox as pv`` gives the same objects. Each name is imported at its first use: ``import training`` alone
imports neither torch nor transformers. See ``docs/python.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training import api

if TYPE_CHECKING:
    from training.api import *  # noqa: F403

__version__ = "0.1.0"
__all__ = api.__all__


def __getattr__(name: str) -> Any:
    """A public name, imported now. Raises ``AttributeError`` for any other."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(api, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
