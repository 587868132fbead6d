"""Pretrained weights: all of them, or a clear word on what the folder lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from training.base.errors import NotInReach, UserError
from training.base.hub import Knock, cache_folder, is_hub_id, offline
from training.base.nearest import path_hint

logger = logging.getLogger(__name__)


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
    if kind is NotInReach and is_hub_id(name) and (why := _why_offline()):
        return kind(
            f"{key}: {name!r} cannot be loaded: it is not in the cache ({cache_folder()}), and {why}. Fetch it once where "
            f"there is a network (hf download {name}), name a folder that holds it, or train without pretrained "
            "weights: --config configs/demo_ctc.yaml or configs/demo_whisper.yaml"
        )
    reason = str(error).strip().splitlines()[0]
    there = Path(name.partition(" (")[0]).is_dir()  # of a folder that is there a part is missing
    if hint := path_hint(Path(name)) if kind is NotInReach and not there else "":
        return kind(f"{key}: {name!r} cannot be loaded: no such folder{hint}")
    return kind(
        f"{key}: {name!r} cannot be loaded ({reason}); give a folder that transformers' save_pretrained wrote, or a hub "
        "id that is cached or in reach"
    )


@contextmanager
def cache_alone_without_network(names: Iterable[str]) -> Iterator[None]:
    """Inside the ``with`` block nothing is asked of a hub that does not answer: its library would retry for minutes.

    Args:
        names: hub ids or folders of the weights that are to be loaded; the hub is asked where one is no folder.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or offline() or not any(map(is_hub_id, names)):
        yield
        return
    knock = Knock()
    if (why := knock.why_not()) is None:
        yield
        return
    logger.warning(
        f"{knock.address} is not in reach ({why}): only models in the cache ({cache_folder()}) can be used, as with "
        "HF_HUB_OFFLINE=1"
    )
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _why_offline() -> str | None:
    from huggingface_hub import constants

    if offline() is not None:
        return f"{offline()} switches the hub off"
    return "the hub is not in reach, or not asked here" if constants.HF_HUB_OFFLINE else None
