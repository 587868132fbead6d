"""A folder that is written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.base.errors import UserError
from training.base.files import writable
from training.base.system_files import is_empty


@contextmanager
def new_folder(output: Path, option: str, *, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder beside ``output`` that takes its place when the block ends well, and is removed otherwise.

    Args:
        output: where the folder goes.
        option: the name that messages give it.
        force: replace what an earlier call wrote there.
        ours: whether a folder is the work of an earlier call; nothing else is ever replaced.

    Raises:
        UserError: ``output`` holds something that may not be replaced, or cannot be written, for want of space perhaps.
    """
    check_free(output, option, force=force, ours=ours)
    writable(output.resolve().parent, option)
    part = Path(tempfile.mkdtemp(dir=output.resolve().parent, prefix=f".{output.name}.", suffix=".part"))
    part.chmod(0o755)
    try:
        yield part
        if part.exists():
            replace_folder(part, output)
    except OSError as error:
        if error.filename is not None:
            raise
        reason = error.strerror or error  # of a write, which does not know its file
        raise UserError(
            f"{option}: {output}: cannot be written ({reason}); nothing was left there"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_free(output: Path, option: str, *, force: bool, ours: Callable[[Path], bool]) -> None:
    """`UserError` where ``output`` holds something that may not be replaced."""
    if output.is_dir() and is_empty(output):
        return
    if output.exists() and not (output.is_dir() and ours(output)):
        raise UserError(f"{option}: {output} holds something else; name a new folder, or empty this one")
    if output.exists() and not force:
        raise UserError(f"{option}: {output} holds an earlier export; --force replaces it")


def replace_folder(new: Path, place: Path) -> None:
    """Rename ``new`` to ``place``; what is there goes once ``new`` stands in its place."""
    if not place.exists():
        new.rename(place)
        return
    old = new.with_name(f"{new.name}.old")
    place.rename(old)
    try:
        new.rename(place)
    except BaseException:  # Ctrl-C too: what was there stays
        old.rename(place)
        raise
    shutil.rmtree(old)
