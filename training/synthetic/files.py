"""The files of a demo corpus: its manifest, and its way into the folder that may hold another corpus."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.base.errors import UserError
from training.synthetic.plan import Row

MANIFEST = "manifest.tsv"
_ASIDE = ".replaced"


def write_manifest(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """The rows as TSV, which knows no quotes; cells of other columns are left out."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, columns, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writeheader()
        writer.writerows({column: row[column] for column in columns} for row in rows)


def refuse_to_overwrite(output: Path, force: bool) -> None:
    """`UserError` where ``output`` is a file, or holds a corpus and ``force`` is not set."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output names the folder that receives the corpus.")
    there = [path for path in ours(output) if path.exists()]
    if there and not force:
        raise UserError(f"{there[0]} exists. Choose another --output, or replace it with --force.")


def ours(output: Path) -> list[Path]:
    """What a demo corpus puts into a folder: the manifest first, which may be missing."""
    return [output / MANIFEST, *sorted(output.glob("video_demo*"))]


def publish(partial: Path, output: Path) -> None:
    """Move the finished corpus to its place, the manifest last; other files in ``output`` stay.

    What it replaces is renamed aside first, put back where the new one cannot be moved, and removed at the end.
    """
    if not output.exists():
        partial.rename(output)
        return
    aside = output / _ASIDE
    _put_back(aside, output)
    aside.mkdir()
    try:
        for old in ours(output):
            if old.exists():
                old.rename(aside / old.name)
        for new in (*sorted(partial.glob("video_*")), partial / MANIFEST):
            new.rename(output / new.name)
    except BaseException:
        _put_back(aside, output)
        raise
    shutil.rmtree(aside)


def _put_back(aside: Path, output: Path) -> None:
    """Undo a replacement that ended halfway: in this call, or in one that was killed."""
    if not aside.is_dir():
        return
    for old in aside.iterdir():
        half = output / old.name
        if half.is_dir():
            shutil.rmtree(half)
        old.replace(half)
    aside.rmdir()
