"""System files: an operating system or a network drive leaves them in folders and archives. They are never data.

Code that lists a folder for data, or asks whether a folder is empty, uses `listed` and `is_empty`, which skip them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_NAMES = frozenset(
    {
        *(".ds_store", ".appledouble", ".lsoverride", ".apdisk", "__macosx", "icon\r"),
        *(".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".documentrevisions-v100"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin"),
        *("system volume information", "@eadir", "#recycle", "@recycle", "lost+found", ".directory"),
    }
)
"""Names in lower case: of macOS, of Windows, of network drives, of Linux desktops."""
_PATTERN = re.compile(
    r"\._.+|paxheaders?(\.(\d+|x))?|pax_global_header|\.trash-\d+|\.nfs[0-9a-f]+|.+:zone\.identifier",
    re.DOTALL,
)
"""AppleDouble files, pax headers that an old ``tar`` has written out as files, open files of NFS, download marks."""


def is_system_file(path: str | Path) -> bool:
    """Whether a path names a system file, or a file in a system folder.

    Args:
        path: parts are separated by ``/`` or ``\\``. Of an absolute path only the last part is examined, because
            the place of a folder says nothing about the files in it.
    """
    parts = [part.lower() for part in re.split(r"[/\\]", str(path)) if part]
    if Path(path).is_absolute():
        parts = parts[-1:]
    return any(part in _NAMES or _PATTERN.fullmatch(part) is not None for part in parts)


def listed(folder: Path, pattern: str = "*", found: list[str] | None = None) -> Iterator[Path]:
    """The paths that ``folder.glob(pattern)`` finds, without system files.

    Args:
        folder: the folder to list.
        pattern: a pattern as `pathlib.Path.glob` takes it.
        found: a list to which the names of the system files are added, relative to ``folder``.
    """
    for path in folder.glob(pattern):
        name = path.relative_to(folder).as_posix()
        if not is_system_file(name):
            yield path
        elif found is not None and path.is_file():
            found.append(name)


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or nothing but system files."""
    return next(listed(folder), None) is None


def summary_of(names: Iterable[str]) -> str | None:
    """One line with the number of system files that were skipped; None for an empty list."""
    found = sorted(names)
    if not found:
        return None
    files = "1 file is" if len(found) == 1 else f"{len(found):,} files are"
    return f"{files} passed over: an operating system has left them (such as {found[0]})"
