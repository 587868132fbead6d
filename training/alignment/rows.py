"""The utterances whose words are to get times: a split of a manifest, or of a folder of LibriSpeech."""

from __future__ import annotations

from pathlib import Path

from training.base.errors import UserError
from training.base.nearest import path_hint
from training.data.manifest import Manifest, load_manifest


def load_rows(data: Path, split: str) -> Manifest:
    """The rows of ``split``: all of a manifest without a column ``split``; of one with it those that it names so.

    A folder is one with ``LibriSpeech/`` in it. Raises `UserError` for a split that is not there, and for what
    `load_manifest` refuses.
    """
    if data.is_dir():
        from training.data.sources.librispeech import load_librispeech

        return load_librispeech(data, [split])
    if not data.is_file():
        raise UserError(f"--data {data}: no such file or folder{path_hint(data)}")
    manifest = load_manifest(data, require=("transcript",), option="polyvox preprocess … --column ")
    if "split" not in manifest.column_names:
        return manifest
    found = manifest.column("split")
    rows = [row for row, name in enumerate(found) if name == split]
    if not rows:
        there = ", ".join(sorted({name for name in found if name})) or "none"
        raise UserError(f"--split {split}: {data} has no such rows (splits: {there})")
    return manifest.select(rows)
