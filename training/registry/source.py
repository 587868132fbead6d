"""A split of a version as a source of utterances, with the interface of every manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.base.errors import UserError
from training.data.manifest import Manifest, from_table
from training.data.tables import LINE, fingerprint
from training.registry import versions
from training.registry.store import Registry, open_registry

_CELLS = {
    "id": "utterance", "start": "start_s", "end": "end_s", "duration": "duration", "transcript": "text",
    "translation": "translation", "language": "language", "target_language": "target_language", "domain": "domain",
    "speaker": "speaker", "group": "recording_group", "words": "words", "word_languages": "word_languages",
}  # fmt: skip
"""Column of a manifest → column of the registry."""
CONTENT = "__content__"
"""Internal column: the SHA-256 of the recording."""


class VersionSplit(Manifest):
    """The utterances of one split. It holds no connection: workers read sound, not the database."""

    remedy = "import the table again with polyvox data prepare --validate under another --version, and train on that"

    def select(self, indices: Sequence[int] | np.ndarray) -> VersionSplit:
        """The rows ``indices``, in that order."""
        chosen = super().select(indices)
        return VersionSplit(chosen.table, self.path, self.audio_root)

    @property
    def column_names(self) -> list[str]:
        """Columns under our names."""
        return [name for name in super().column_names if name != CONTENT]

    def sound_marks(self) -> list[str]:
        """The hash of each recording's content; where it lies does not count."""
        return self.table.column(CONTENT).to_pylist()

    def sha256(self) -> str:
        """A fingerprint of the rows: texts, times and paths."""
        return fingerprint(self.table.combine_chunks())


def load_version(where: str, version: str, split: str) -> VersionSplit:
    """Split ``train``, ``dev`` or ``test`` of a version, in the order in which it was imported.

    ``where`` is a SQLite file or a URL (`training.registry.store.open_registry`). Copies that the import converted
    are read in place of the originals. Raises `UserError` where there is no such version or split, and for
    recordings whose file holds something else now.
    """
    with open_registry(where) as registry:
        found = versions.rows(registry, version, split, key="data.version:")
        if not found:
            hint = (
                "; prepare_data.py --dev_from_train 0.1 takes some of the training rows"
                if split == "dev"
                else ""
            )
            raise UserError(
                f"data.version: {version} of {registry.name} has no {split} utterances (see polyvox data stats){hint}"
            )
        return manifest_of(registry, found, f"{version}/{split}")


def manifest_of(registry: Registry, found: Sequence[Any], name: str) -> VersionSplit:
    """Rows of `versions.rows` as a manifest called ``registry[name]``; `UserError` where their sound is gone."""
    label = Path(f"{registry.name}[{name}]")
    return VersionSplit(from_table(_table(registry, found), label).table, label)


def _table(registry: Registry, found: Sequence[Any]) -> pa.Table:
    lost = [row.utterance for row in found if row.path is None and row.converted_path is None]
    if lost:
        raise UserError(
            f"{registry.name}: {len(lost):,} recordings of this version are no longer where they were imported, such as "
            f"that of {lost[0]!r}: another content lies under their path; put them back and import them again"
        )
    columns = {ours: _strings(getattr(row, theirs) for row in found) for ours, theirs in _CELLS.items()}
    columns["audio_path"] = _strings(str(sound_path(registry, row)) for row in found)
    others = [json.loads(row.extra) if row.extra else {} for row in found]
    for name in dict.fromkeys(name for other in others for name in other):
        columns.setdefault(name, _strings(other.get(name) for other in others))
    kept = {name: cells for name, cells in columns.items() if cells.null_count < len(cells)}
    kept[CONTENT] = _strings(row.content_hash for row in found)
    return pa.table({**kept, LINE: pa.array(range(1, len(found) + 1), pa.int32())})


def sound_path(registry: Registry, row: Any) -> Path:
    """Where the sound of a row of `versions.rows` is read: the converted copy, else the original."""
    return registry.resolve(row.converted_path or row.path)


def _strings(values: Any) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())
