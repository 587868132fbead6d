"""Files that a command derives from others: written whole or not at all, and overwritten only by their maker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, TextIO

from training.base.errors import UserError


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _new_file(beside: Path) -> Path:
    """An empty file next to ``beside``, with the usual rights (mkstemp makes private ones)."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=beside.parent, prefix=f".{beside.name}.", suffix=".part")
    os.close(number)
    mask = os.umask(0)
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)
    return Path(name)


@contextlib.contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file that takes the place of ``path`` when the block ends well, and leaves it alone otherwise."""
    with _atomic(path, "w", encoding="utf-8", newline="") as handle:
        yield handle  # type: ignore[misc]


@contextlib.contextmanager
def atomic_bytes(path: Path) -> Iterator[BinaryIO]:
    """`atomic_text` for bytes."""
    with _atomic(path, "wb") as handle:
        yield handle  # type: ignore[misc]


@contextlib.contextmanager
def _atomic(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    part = _new_file(path)
    try:
        with part.open(mode, **options) as handle:
            yield handle
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class DerivedFiles:
    """The files that one call of a command makes, published together.

    ``record`` is a JSON file that notes the hash of each. A file that is there already is replaced only when its
    content is one that ``record`` notes: `UserError` otherwise, unless ``force``. Files of an earlier call that
    this one does not make go, so that none is taken for a part of the new whole.
    """

    def __init__(self, record: Path, targets: Iterable[Path], *, force: bool = False) -> None:
        self.record = record
        self.known = _recorded(record)
        self.stale = [record.parent / name for name in self.known]
        self.parts: dict[Path, Path] = {}
        if not force:
            self._refuse_foreign([record, *targets])

    def _refuse_foreign(self, targets: list[Path]) -> None:
        there = [path for path in dict.fromkeys([*targets, *self.stale]) if path.exists()]
        foreign = [path for path in there if path != self.record and sha256(path) not in self._hashes(path)]
        if self.record in there and not self.known:
            foreign.append(self.record)
        if foreign:
            raise UserError(
                f"{', '.join(map(str, foreign))}: already there, and not as an earlier call of this command left it; "
                "move it away, choose another output, or overwrite it with --force"
            )

    def _hashes(self, path: Path) -> list[str]:
        return self.known.get(path.name, []) if path.parent == self.record.parent else []

    def __enter__(self) -> DerivedFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self.parts.values():
            part.unlink(missing_ok=True)

    def open(self, path: Path) -> TextIO:
        """A UTF-8 file to write and close; it stands at ``path`` once `publish` has been called."""
        self.parts[path] = _new_file(path)
        return self.parts[path].open("w", encoding="utf-8", newline="")

    def publish(self, content: Mapping[str, Any]) -> None:
        """Put the files in their places and ``content`` into the record.

        The record comes first and still knows the old files: a call that is interrupted here can be repeated.
        """
        hashes = {path.name: [sha256(part)] for path, part in self.parts.items()}
        both = {name: [*hashes.get(name, []), *self.known.get(name, [])] for name in {**self.known, **hashes}}
        _write_record(self.record, content, both)
        for path in self.stale:
            if path not in self.parts:
                path.unlink(missing_ok=True)
        for path, part in self.parts.items():
            part.replace(path)
        _write_record(self.record, content, hashes)


def is_derived(path: Path) -> bool:
    """Whether a command of ours made this file as it is: a record beside it notes its hash."""
    noted = [_recorded(record).get(path.name, []) for record in path.parent.glob("*.json")]
    return any(noted) and any(sha256(path) in hashes for hashes in noted)


def _recorded(record: Path) -> dict[str, list[str]]:
    """``{file name: hashes that it may have}``; empty where there is no record of this kind."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return {}
    return {
        name: hashes for name, hashes in files.items() if Path(name).name == name and isinstance(hashes, list)
    }


def _write_record(record: Path, content: Mapping[str, Any], files: Mapping[str, list[str]]) -> None:
    with atomic_text(record) as handle:
        json.dump({**content, "files": files}, handle, ensure_ascii=False, indent=2)
        handle.write("\n")


def rebase(path: str, folder: Path) -> str:
    """``path`` as it is written in a file of ``folder``: relative, with slashes; absolute where it must be."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return str(Path(path).absolute())


def writable(folder: Path, option: str) -> Path:
    """Make the folder and write a byte into it; `UserError` that names ``option`` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{option}: {folder} cannot be written to ({reason.lower()}: {error.filename or folder}); "
            "name another folder, or make room and give yourself the right to write there"
        ) from error
    return folder
