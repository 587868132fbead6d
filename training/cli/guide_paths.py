"""Paths of the guides, which keep everything under ``training/``: said, and taken from where it lies here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

GUIDES = "training/"
FOLDERS = ("configs", "outputs", "data")


def in_their_place(words: Sequence[str]) -> list[str]:
    """The words of a command line, with paths such as ``training/configs/dev_whisper.yaml`` as they are here.

    A path is changed where it is not there, and either lies in its place here or is in a folder that only the guides have. A
    line on stderr says so.

    Args:
        words: options, values and ``key=value``.
    """
    return [_word(word) for word in words]


def _word(word: str) -> str:
    name, equals, value = word.partition("=")
    path = value if equals else word
    ours = _ours(path)
    if ours is None:
        return word
    print(f"{path}: lies at {ours} here", file=sys.stderr)
    return f"{name}={ours}" if equals else ours


def _ours(path: str) -> str | None:
    """Where the path lies here; None where it is not one of the guides'."""
    spelt = path.replace("\\", "/").removeprefix("./")
    ours = spelt.removeprefix(GUIDES)
    folder = ours.partition("/")[0]
    if ours == spelt or folder not in FOLDERS or Path(path).exists():
        return None
    return ours if Path(ours).exists() or not Path(GUIDES, folder).is_dir() else None
