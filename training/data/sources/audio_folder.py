"""A folder of audio files with `datasets`' ``metadata.csv`` beside them, read without `datasets`.

Its own audio folder needs torchcodec even where nothing is decoded, and reads the text "NA" as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from training.base.errors import UserError
from training.base.system_files import listed, summary_of
from training.data import audio
from training.data.columns import DATASET_COLUMNS, rename
from training.data.manifest import Manifest, from_table, with_header_durations
from training.data.tables import LINE, read_table

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = audio.SOUND_SUFFIXES
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def is_audio_folder(folder: Path) -> bool:
    """Whether ``folder`` holds metadata or, somewhere below, an audio file."""
    return any(found.name in METADATA or found.suffix.lower() in SUFFIXES for found in listed(folder, "**/*"))


def load_audio_folder(folder: Path, split: str, columns: Mapping[str, str] | None = None) -> Manifest:
    """The files that the metadata names (column ``file_name``), or all audio files where there is none.

    A split is a folder of its name (``train``, ``validation``, ``test`` and their usual other names); a folder
    without such parts is all ``train``. Lengths come from the headers where no column ``duration`` states them.
    Raises `UserError` for a split that is not there and for what `load_manifest` refuses.
    """
    root = _split_folder(folder, split)
    found = [root / name for name in METADATA if (root / name).is_file()]
    system_files: list[str] = []
    table, path = (_described(found[0], columns), found[0]) if found else (_listed(root, system_files), root)
    rows = from_table(
        table, path, audio_root=root, need_duration=False, need_text=bool(found), option=DATASET_COLUMNS
    )
    rows = with_header_durations(rows, rows.seconds)
    rows.column_option = DATASET_COLUMNS
    line = summary_of(system_files)
    rows.notes = () if line is None else (f"{root}: {line}",)
    return rows


def _split_folder(folder: Path, split: str) -> Path:
    names = next((names for names in _SPLITS.values() if split in names), (split,))
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    parts = [name for names in _SPLITS.values() for name in names if (folder / name).is_dir()]
    if parts or "train" not in names:
        raise UserError(
            f"data.dataset.split: {folder} has no folder {split!r}"
            + (
                f" (there are: {', '.join(parts)})"
                if parts
                else "; without such folders all of it is 'train'"
            )
        )
    return folder


def _described(path: Path, columns: Mapping[str, str] | None) -> pa.Table:
    return rename(read_table(path), {"audio_path": "file_name", **(columns or {})}, path)


def _listed(root: Path, system_files: list[str]) -> pa.Table:
    """The audio files below ``root``; the names of system files are added to ``system_files``."""
    found = [path for path in listed(root, "**/*", system_files) if path.suffix.lower() in SUFFIXES]
    files = sorted(path.relative_to(root).as_posix() for path in found)
    return pa.table(
        {"audio_path": pa.array(files, pa.string()), LINE: pa.array(range(1, len(files) + 1), pa.int32())}
    )
