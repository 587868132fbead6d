"""The splits of LibriSpeech (OpenSLR resource 12): loaded, checked, unpacked, each step gone on with after a stop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from training.base.errors import UserError
from training.base.files import writable
from training.base.system_files import listed, summary_of
from training.data.download.archives import Archive, Report, bar, need_room, obtain
from training.data.download.transfer import PAUSE
from training.data.download.unpack import unpack
from training.data.sources.librispeech import TRANSCRIPTS, corpus_folder, marker

MIRRORS = (
    "https://www.openslr.org/resources/12",
    "https://us.openslr.org/resources/12",
    "https://openslr.elda.org/resources/12",
)
"""Servers of OpenSLR, in the order in which they are asked."""
CHECKSUMS = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
"""Split → MD5 of its archive, from OpenSLR's ``md5sum.txt``."""
SUFFIX = ".tar.gz"


def download_librispeech(
    output: Path,
    splits: Sequence[str],
    *,
    mirrors: Sequence[str] = MIRRORS,
    checksums: Mapping[str, str] = CHECKSUMS,
    keep_archives: bool = False,
    report: Report = print,
    pause: float = PAUSE,
) -> list[Path]:
    """Bring ``output/LibriSpeech/<split>`` about for each split; the folders.

    An archive ``output/<split>.tar.gz`` that is there is used and stays. ``pause`` is that of `transfer`. Raises
    `UserError` for a split without checksum, an address that is none, too little room, archives that no mirror gives
    whole, and those that hold something else than LibriSpeech.
    """
    _check(splits, mirrors, checksums)
    corpus = corpus_folder(output)
    writable(corpus.parent, "--output")
    for split in dict.fromkeys(splits):
        archive = Archive(corpus.parent, split, checksums[split])
        _provide(archive, corpus, mirrors, report, pause)
        archive.dispose(keep_archives)
    return [corpus / split for split in dict.fromkeys(splits)]


def read_checksums(path: Path) -> dict[str, str]:
    """Split → MD5 from a file as ``md5sum`` writes it (``<md5>  <split>.tar.gz``). Raises `UserError`."""
    if not path.is_file():
        raise UserError(f"--checksums: {path}: no such file")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{32}) [ *](\S+)", line.strip())
        if match is None and line.strip():
            raise UserError(
                f"--checksums: {path}:{number}: expected <md5>  <name>{SUFFIX}, as md5sum writes it"
            )
        if match is not None and match[2].endswith(SUFFIX):
            found[match[2].removesuffix(SUFFIX)] = match[1].lower()
    return found


def _check(splits: Sequence[str], mirrors: Sequence[str], checksums: Mapping[str, str]) -> None:
    for split in splits:
        if split not in checksums:
            near = get_close_matches(split, checksums, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(checksums)}"
            raise UserError(f"--splits {split}: no checksum is known for it; {hint}")
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise UserError(f"--splits {split}: a split is a plain name")
    for mirror in mirrors:
        if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
            raise UserError(f"--mirror {mirror}: give the address of a folder, http://… or https://…")


def _provide(archive: Archive, corpus: Path, mirrors: Sequence[str], report: Report, pause: float) -> None:
    """Load and unpack what is missing. The markers tell the next call how far this one came."""
    split, folder = archive.split, corpus / archive.split
    unpacking, complete = (marker(corpus, split, state) for state in ("unpacking", "complete"))
    if folder.is_dir() and not unpacking.exists():
        if complete.exists():
            return report(f"{split}: {folder} is there already")
        if not archive.path.is_file():
            return report(
                f"{split}: {folder} is there and was not unpacked by this command: left as it is; to check it, put "
                f"{archive.name} into {archive.folder} and call again"
            )
    complete.unlink(missing_ok=True)
    found = obtain(archive, mirrors, begun=unpacking.exists(), report=report, pause=pause)
    need_room(archive.folder, found.stat().st_size - _bytes_in(folder))
    corpus.mkdir(exist_ok=True)
    unpacking.touch()
    system_files: list[str] = []
    with bar(split, found.stat().st_size) as progress:
        written = unpack(found, corpus, split, progress.update, system_files)
    if next(listed(folder, f"*/*/*{TRANSCRIPTS}"), None) is None:
        raise UserError(
            f"{found}: holds no transcripts in LibriSpeech/{split}/; it is the archive of something else"
        )
    unpacking.replace(complete)
    if line := summary_of(system_files):
        report(f"{split}: {line}")
    report(f"{split}: {folder} is complete; files unpacked: {written:,}")


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
