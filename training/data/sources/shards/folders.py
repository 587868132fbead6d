"""Which domain a configuration gives to a folder of shards. What the folder is called says nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def folder_domain(folder: Path, domains: Mapping[str, str]) -> str | None:
    """The entry of a map for a folder: its key is the folder's name, or as much of the end of its path as is needed."""
    fitting = [key for key in domains if names_folder(key, folder)]
    return domains[max(fitting, key=lambda key: len(Path(key).parts))] if fitting else None


def names_folder(key: str, folder: Path) -> bool:
    """Whether the last parts of the folder's path are those of ``key``."""
    parts = Path(key).parts
    return bool(parts) and folder.parts[-len(parts) :] == parts
