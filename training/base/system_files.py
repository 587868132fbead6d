"""Files that an operating system or a network drive leaves in folders and archives. They are never data.

Whoever lists a folder for data, or asks whether it is empty, asks here what to pass over.
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


def is_litter(path: str | Path) -> bool:
    """Whether a relative path (its parts parted by ``/`` or ``\\``) names such a file, or one in such a folder.

    Of an absolute path only the file's own name counts: where a folder lies says nothing about what is in it.
    """
    parts = [part.lower() for part in re.split(r"[/\\]", str(path)) if part]
    if Path(path).is_absolute():
        parts = parts[-1:]
    return any(part in _NAMES or _PATTERN.fullmatch(part) is not None for part in parts)


def listed(folder: Path, pattern: str = "*", litter: list[str] | None = None) -> Iterator[Path]:
    """What ``folder.glob(pattern)`` finds, without litter; the list ``litter`` gets the names of its files."""
    for path in folder.glob(pattern):
        name = path.relative_to(folder).as_posix()
        if not is_litter(name):
            yield path
        elif litter is not None and path.is_file():
            litter.append(name)


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or nothing but litter."""
    return next(listed(folder), None) is None


def told(names: Iterable[str]) -> str | None:
    """One line that says how many files were passed over, None where there was none."""
    found = sorted(names)
    if not found:
        return None
    files = "1 file is" if len(found) == 1 else f"{len(found):,} files are"
    return f"{files} passed over: an operating system has left them (such as {found[0]})"
