"""Pretrained weights: all of them, or a clear word on what the folder lacks."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from training.base.errors import NotInReach, UserError


def load_whole(model_class: Any, name: str, key: str, *, new: Sequence[str] = (), **options: Any) -> Any:
    """``model_class.from_pretrained(name)``, which by itself fills what the files lack with random numbers.

    ``new``: patterns of parameter names that the files need not hold. Raises `UserError`, which begins with the
    configuration's ``key``, where others are missing: a folder that another wrapper saved under other names would
    otherwise train, and score, as if it had never been pretrained.
    """
    model, found = model_class.from_pretrained(name, output_loading_info=True, **options)
    missing = sorted(key for key in found["missing_keys"] if not any(fnmatchcase(key, p) for p in new))
    if missing:
        there = sorted(found["unexpected_keys"])
        extra = f"; it holds {len(there)} that do not belong, such as {there[0]}" if there else ""
        raise UserError(
            f"{key}: {name!r} lacks {len(missing)} of this model's weights, such as {missing[0]}{extra}. Save it with "
            "save_pretrained of the stock model, or name another"
        )
    return model


def cannot_load(key: str, name: str, error: Exception) -> UserError:
    """The error to raise where transformers could not load ``name``: `NotInReach` for a hub id, `UserError` for a folder."""
    kind = UserError if Path(name).is_dir() else NotInReach
    reason = str(error).strip().splitlines()[0]
    return kind(
        f"{key}: {name!r} cannot be loaded ({reason}); give a folder that transformers' save_pretrained wrote, or a hub "
        "id that is cached or in reach"
    )
