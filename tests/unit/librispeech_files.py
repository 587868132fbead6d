"""Small LibriSpeech trees and archives for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import shard_assets
from speech_files import RATE, sound

TEXTS = ("MISTER QUILTER IS THE APOSTLE", "NOR IS MISTER QUILTER'S MANNER", "HE TELLS US")
Chapters = Mapping[str, Sequence[str]]
CHAPTERS: Chapters = {"84/121123": TEXTS, "84/121550": TEXTS[:1], "174/50561": TEXTS[1:]}
"""``speaker/chapter`` → texts."""


def tree(root: Path, split: str = "dev-clean", chapters: Chapters = CHAPTERS, seconds: float = 0.5) -> Path:
    """``root/LibriSpeech/<split>`` with a sound for each text; the k-th of a chapter is 0.1 k s longer."""
    folder = root / "LibriSpeech" / split
    for place, texts in chapters.items():
        stem = place.replace("/", "-")
        lines = []
        for number, text in enumerate(texts):
            name = f"{stem}-{number:04}"
            sound(folder / place / f"{name}.flac", seconds + 0.1 * number, RATE, seed=len(name) + number)
            lines.append(f"{name} {text}\n")
        (folder / place / f"{stem}.trans.txt").write_text("".join(lines), encoding="utf-8")
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID |SEX\n", encoding="utf-8")
    return folder


def packed(members: Iterable[shard_assets.Entry]) -> bytes:
    """The members as a ``.tar.gz``."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(one.content))
    return gzip.compress(sink.getvalue(), mtime=0)


def archive_of(split: str, folder: Path) -> bytes:
    """What OpenSLR offers for a split; the files are made in ``folder``."""
    tree(folder, split)
    files = sorted(path for path in (folder / "LibriSpeech").rglob("*") if path.is_file())
    names = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    return packed(shard_assets.member(name, content) for name, content in names)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
