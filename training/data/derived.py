"""Files that a command derives from others: written whole or not at all, and overwritten only by their maker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from training.errors import UserError


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file that takes the place of ``path`` when the block ends well, and leaves it alone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        os.chmod(name, 0o666 & ~_umask())  # noqa: PTH101
        with open(number, "w", encoding="utf-8", newline="") as handle:  # noqa: PTH123
            yield handle
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """mkstemp makes private files; what a command writes for others should have the usual rights."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_foreign(targets: Iterable[Path], record: Path, *, force: bool) -> None:
    """`UserError` when a target exists that is not, byte for byte, what the last call noted in ``record``."""
    if force:
        return
    ours = recorded(record)
    foreign = [path for path in targets if path.exists() and ours.get(path.name) != sha256(path)]
    if foreign:
        names = ", ".join(str(path) for path in foreign)
        raise UserError(
            f"{names}: already there, and not as an earlier call of this command left it; move it away, choose "
            "another output, or overwrite it with --force"
        )


def recorded(record: Path) -> dict[str, str]:
    """``{file name: SHA-256}`` of what the last call wrote beside ``record``; empty where there is none."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else {}


def write_record(record: Path, written: Iterable[Path], content: Mapping[str, Any]) -> None:
    """Write ``content`` and the hashes of the files ``written`` as JSON."""
    files = {path.name: sha256(path) for path in written}
    with atomic_text(record) as handle:
        json.dump({**content, "files": files}, handle, ensure_ascii=False, indent=2)
        handle.write("\n")
