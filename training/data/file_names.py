"""Files whose names hold accents: ``é`` is one character (NFC) or two (NFD), and both look the same.

macOS and some archives write NFD, most tables hold NFC, and Linux takes them for two names.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path


def existing(path: str | Path) -> Path | None:
    """The path as it is on disk: as it is spelt, else with its accents written otherwise; None where it is not there."""
    path = Path(path)
    if _is_there(path):
        return path
    if str(path).isascii():
        return None
    for form in ("NFC", "NFD"):
        other = Path(unicodedata.normalize(form, str(path)))
        if _is_there(other):
            return other
    return _walked(path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text of a thousand characters in the column of paths
        return False


def on_disk(path: str | Path) -> Path:
    """`existing`, or the path itself where there is no such file: the message that follows names what was asked for."""
    return existing(path) or Path(path)


def same_name(name: str) -> str:
    """What two spellings of one name share (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _walked(path: Path) -> Path | None:
    """Part by part: a folder may be spelt in one way and the file in it in the other."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if part.isascii() or _is_there(found / part):
            found = found / part
            continue
        names = _names(str(found), _changed(found))
        if (name := names.get(same_name(part))) is None:
            return None
        found = found / name
    return found if _is_there(found) else None


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _names(folder: str, changed: int) -> dict[str, str]:
    """The names of a folder that hold accents, by their NFC form."""
    try:
        return {
            same_name(entry.name): entry.name for entry in Path(folder).iterdir() if not entry.name.isascii()
        }
    except OSError:
        return {}
