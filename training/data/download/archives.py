"""The archive of a split: the one that is here, if its checksum is right, else one from a mirror."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.progress import progress_bar
from training.data.download.transfer import PAUSE, Unavailable, size_of, transfer

GB = 1e9
Report = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """``<split>.tar.gz`` in ``folder``. What this command loads keeps the suffix ``.part``: that file is ours to delete."""

    folder: Path
    split: str
    md5: str

    @property
    def name(self) -> str:
        return f"{self.split}.tar.gz"

    @property
    def path(self) -> Path:
        """Where the user's own archive lies, and ours with ``--keep_archives``."""
        return self.folder / self.name

    @property
    def part(self) -> Path:
        return self.folder / f"{self.name}.part"

    def is_right(self, file: Path, report: Report) -> bool:
        """Whether a file has the content that the checksum says."""
        report(f"{self.split}: checking {file} ({file.stat().st_size / GB:.2f} GB)")
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False))
        return digest.hexdigest() == self.md5

    def dispose(self, keep: bool) -> None:
        """Delete what was loaded, or give it its name."""
        if keep and self.part.is_file() and not self.path.exists():
            self.part.replace(self.path)
        self.part.unlink(missing_ok=True)


def obtain(
    archive: Archive, mirrors: Sequence[str], *, begun: bool, report: Report, pause: float = PAUSE
) -> Path:
    """The archive on disk, with the right content.

    A file with another content is never used: it gets the suffix ``.damaged``, and the next mirror is tried. With
    ``begun`` (its unpacking has) a part may be whole, and no server is asked. Raises `UserError` when no mirror gives
    it, and where there is no room for it and for what is in it.
    """
    if archive.path.is_file():
        if archive.is_right(archive.path, report):
            return archive.path
        report(f"{archive.split}: {_damaged(archive, archive.path)}")
    if begun and archive.part.is_file() and archive.is_right(archive.part, report):
        return archive.part
    failures = []
    for mirror in mirrors:
        failure = _load(archive, mirror, report, pause)
        if failure is None:
            return archive.part
        report(f"{archive.split}: {failure}")
        failures.append(f"\n  {failure}")
    raise UserError(
        f"{archive.name}: no mirror gives it; the same command goes on where it stopped, --mirror URL names another server"
        f"{''.join(failures)}"
    )


def _load(archive: Archive, mirror: str, report: Report, pause: float) -> str | None:
    """Load it from one mirror into ``archive.part``; None, or why that was not possible."""
    url = f"{mirror.rstrip('/')}/{archive.name}"
    report(f"{archive.split}: {url}{_begun(size_of(archive.part))}")
    with bar(archive.split) as progress:
        try:
            transfer(url, archive.part, begin=_begin(archive, progress), advance=progress.update, pause=pause)
        except Unavailable as error:
            return f"{url}: {error}"
    if archive.is_right(archive.part, report):
        return None
    return f"{url}: {_damaged(archive, archive.part)}"


def _damaged(archive: Archive, file: Path) -> str:
    """Put the file aside; returns the line to print about it."""
    return f"{file.name} is damaged (its MD5 is not {archive.md5}); kept as {set_aside(file)}"


def _begun(have: int) -> str:
    return f", from {have / GB:.2f} GB on" if have else ""


def _begin(archive: Archive, progress: Any) -> Callable[[int, int | None], None]:
    def begin(have: int, total: int | None) -> None:
        if total is not None:
            need_room(archive.folder, (total - have) + total)
        progress.reset(total)
        progress.update(have)
        progress.initial = have  # what an earlier call has loaded says nothing of the speed

    return begin


def need_room(folder: Path, needed: float) -> None:
    """`UserError` unless ``needed`` bytes are free there. FLAC does not shrink: an archive unpacks to its own size."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {needed / GB:.2f} GB are needed for the archive and what is in it, {free / GB:.2f} GB are free; "
            "make room, or name another --output"
        )


def set_aside(file: Path) -> Path:
    """Rename a damaged file, to a name that is free."""
    names = (file.with_name(f"{file.name}.damaged{suffix}") for suffix in chain([""], count(2)))
    return file.replace(next(name for name in names if not name.exists()))


@contextmanager
def bar(split: str, total: int | None = None) -> Any:
    """A bar of bytes on a terminal, else lines at intervals."""
    with progress_bar(total=total, desc=split, unit="B", unit_scale=True) as progress:
        yield progress
