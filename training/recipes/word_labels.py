"""Which splits of a configuration have no times of words, and where ``polyvox timestamps`` puts theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.manifest import load_manifest
from training.data.timestamps_manifest import FILE
from training.recipes.resolve import Run

FOLDER = "timestamps"


@dataclass(frozen=True)
class Label:
    """``part``: train, dev or test; ``split``, ``data``, ``output``: what `polyvox timestamps` is told."""

    part: str
    split: str
    data: Path
    output: Path

    @property
    def manifest(self) -> Path:
        """What is written."""
        return self.output / self.split / FILE

    def names(self) -> dict[str, Any]:
        """What the recipe's ``{item.…}`` means; ``read``: the manifest whose change does it again (a corpus stays as it is)."""
        read = [] if self.output.parent == self.data else [self.data]
        return {**vars(self), "manifest": self.manifest, "read": read}


def labels(run: Run) -> list[Label]:
    """The splits of LibriSpeech, and manifests for training and dev, there or to be split, without a column ``words``."""
    data = run.resolved.values["data"]
    if libri := data.get("librispeech"):
        return _of_librispeech(libri)
    return [_of_manifest(part, data) for part in ("train", "dev") if _untimed(run, part)]


def overrides(found: Sequence[Label], values: Mapping[str, Any]) -> list[str]:
    """What phase 2 is told in order to read the labels."""
    told = [f"data.{one.part}={quoted(one.manifest)}" for one in found if one.part != "test"]
    return [*told, "data.librispeech=null", "data.test=null"] if values["data"].get("librispeech") else told


def quoted(path: Path | str) -> str:
    """A text as an override's value, whatever it looks like."""
    return json.dumps(str(path), ensure_ascii=False)


def _of_librispeech(libri: Mapping[str, Any]) -> list[Label]:
    root = Path(libri["root"])
    for part in ("train", "dev"):
        if len(libri[part]) > 1:
            raise UserError(
                f"data.librispeech.{part}: {', '.join(libri[part])}: phase 2 reads the word times of one split; name one"
            )
    return [
        Label(part, split, root, root / FOLDER) for part in ("train", "dev", "test") for split in libri[part]
    ]


def _untimed(run: Run, part: str) -> bool:
    """Whether rows of a split lack word times; of one that is still to be made, those of the manifest to be split."""
    data = run.resolved.values["data"]
    source = data[part]
    if not run.from_files or source is None:
        return False
    if not Path(source).exists() and run.reads_splits(run.path("splits_dir")):
        source = run.path("manifest_path")
    if not Path(source).exists():
        return False
    return "words" not in load_manifest(Path(source), columns=data["columns"]).column_names


def _of_manifest(part: str, data: Mapping[str, Any]) -> Label:
    path = Path(data[part])
    if data["audio_root"] or data["columns"]:
        raise UserError(
            f"data.{part}: {path} has no column words, which phase 2 learns from, and polyvox timestamps knows neither "
            "data.audio_root nor data.columns: add the column, or write the manifest with our names and its own paths"
        )
    return Label(part, part, path, path.parent / FOLDER)
