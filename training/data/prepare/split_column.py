"""The parts of one manifest whose column ``split`` names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from training.base.errors import UserError
from training.data.manifest import Manifest, load_manifest
from training.data.prepare.partition import partition
from training.data.prepare.split import PARTS, part_name


def open_part(
    path: Path,
    part: str,
    *,
    dev_share: float,
    seed: int,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Manifest | None:
    """The rows of ``train``, ``dev`` or ``test``; None where there are none.

    Without dev rows ``dev_share`` of the training rows' duration serve: the test rows are never looked at.
    Raises `UserError` for a file that is not there and for a part that has another name.
    """
    if not path.is_file():
        raise UserError(f"data.manifest: {path} is not there; give data.manifest=PATH")
    manifest = load_manifest(path, audio_root=audio_root, columns=columns, need_text=True)
    names = [part_name(name) for name in manifest.column("split")]
    for row, name in enumerate(names):
        if name not in PARTS:
            raise UserError(f"{path}:{manifest.line(row)}: split: {name!r} is none of {', '.join(PARTS)}")
    parts = np.array(names)
    if "dev" not in names:
        parts = _with_dev(manifest, parts, dev_share, seed)
    rows = np.flatnonzero(parts == part)
    return manifest.select(rows) if len(rows) else None


def _with_dev(manifest: Manifest, parts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Dev rows drawn as the test rows were: other speakers where those are others, else utterances."""
    rows = np.flatnonzero(parts == "train")
    if len(rows) < 2:
        return parts
    groups = _groups(manifest, parts, rows)
    names, place = np.unique(groups, return_inverse=True)
    seconds = np.bincount(place, weights=manifest.durations[rows])
    chosen = partition(seconds, (1 - share, share), seed)
    result = parts.copy()
    result[rows[chosen[place] == 1]] = "dev"
    assert len(names) > 1
    return result


def _groups(manifest: Manifest, parts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    each = rows.astype(str)
    if "speaker" not in manifest.column_names:
        return each
    speakers = np.array([name or "" for name in manifest.column("speaker")])
    tested, trained = set(speakers[parts == "test"]), set(speakers[rows])
    if not tested or tested & trained or "" in trained or len(trained) < 2:
        return each
    return speakers[rows]
