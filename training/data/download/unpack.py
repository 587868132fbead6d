"""An archive of LibriSpeech into its folder: nothing beside it is written, nothing that is there is replaced.

What is written is the content of regular files alone. Rights, owners, times and links of an archive never reach the
disk.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.base.errors import UserError
from training.base.system_files import is_system_file
from training.data.sources.librispeech import FOLDER


def unpack(
    archive: Path,
    corpus: Path,
    split: str,
    advance: Callable[[int], None],
    system_files: list[str] | None = None,
) -> int:
    """Write what of a ``.tar.gz`` is missing below ``corpus`` (the folder ``LibriSpeech``); how many files that was.

    Members that an operating system has left are skipped; their names are added to the list ``system_files``.

    A file appears under its name when it is whole, so that a call that was killed can be repeated. ``advance(bytes)``
    follows every member. Raises `UserError` for a member that would lie elsewhere or is no regular file, for a file
    that is there with another size, and for an archive that ends too early.
    """
    written, system_files = 0, [] if system_files is None else system_files
    with _opened(archive) as tar:
        for member in tar:
            target = None
            if is_system_file(member.name):
                system_files += [member.name] if member.isreg() else []
            else:
                target = _target(member, corpus, split, archive)
            if target is not None and not _is_there(target, member, corpus):
                _write(tar, member, target)
                written += 1
            advance(member.size)
    return written


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive, "r|gz") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(
            f"{archive}: cannot be unpacked: {error}; move it away and call again, so that it is downloaded anew"
        ) from error


def _target(member: tarfile.TarInfo, corpus: Path, split: str, archive: Path) -> Path | None:
    """Where a member goes; None for a folder. Folders are made when a file needs them."""
    parts = member.name.removeprefix("./").rstrip("/").split("/")
    problem = _problem(member, parts, split)
    if problem is None and len(parts) > 1:
        try:
            tarfile.data_filter(member.replace(name="/".join(parts[1:]), deep=False), str(corpus.resolve()))
        except tarfile.FilterError as error:
            problem = str(error)
    if problem is not None:
        raise UserError(
            f"{archive}: is not unpacked further: its member {member.name!r} {problem}; such an archive is not one of "
            "LibriSpeech, take another mirror"
        )
    return corpus.joinpath(*parts[1:]) if member.isreg() else None


def _problem(member: tarfile.TarInfo, parts: list[str], split: str) -> str | None:
    """Why a member may not be written; only ``LibriSpeech/<file>`` and ``LibriSpeech/<split>/…`` may."""
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "is neither a file nor a folder"
    if any(part == "" or part.startswith(".") for part in parts) or any(c in member.name for c in "\\:\0"):
        return "has a name that is absolute, hidden or leaves its folder"
    if parts[0] != FOLDER or (len(parts) == 1 and member.isreg()):
        return f"does not lie in {FOLDER}/"
    if parts[1:2] not in ([], [split]) and not (len(parts) == 2 and member.isreg()):
        return f"does not lie in {FOLDER}/{split}/"
    return None


def _is_there(target: Path, member: tarfile.TarInfo, corpus: Path) -> bool:
    if not target.exists():
        return False
    # README, SPEAKERS and the like come with every archive: the first ones stay.
    if target.parent == corpus or target.stat().st_size == member.size:
        return True
    raise UserError(
        f"{target}: is there already with {target.stat().st_size:,} bytes, the archive has {member.size:,}; move it away "
        "and call again"
    )


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(
        f".{target.name}.part"
    )  # always the same: what a killed call left is written over
    content = tar.extractfile(member)
    assert content is not None
    with content, part.open("wb") as handle:
        shutil.copyfileobj(content, handle)
    if part.stat().st_size != member.size:
        part.unlink()
        raise tarfile.ReadError(f"{member.name} is cut off")
    part.replace(target)
