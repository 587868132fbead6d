"""The members of a tar archive by their headers alone. Nothing is extracted, and no name is ever opened.

Python's `tarfile` stops at the first damaged header without a word; here what follows it is found again.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
DAMAGE = ("broken_member", "truncated")
"""Reasons of `Refused` that tell of lost bytes."""
_EXTENSION_LIMIT = 1 << 16
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True, slots=True)
class Member:
    """A whole regular file of the archive; its content is ``size`` bytes from the byte ``offset`` on."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """What of an archive is not read: a name ("" where there is none), a countable reason, and what it was.

    ``size`` is the number of bytes of a stretch that holds no valid header, 0 for all else.
    """

    name: str
    reason: str
    detail: str
    size: int = 0


def read_members(handle: BinaryIO) -> Iterator[Member | Refused]:
    """The regular files of an archive in their order, and what is refused; folders are passed over.

    Reasons: ``broken_member`` (bytes that are no header; reading goes on at the next one), ``truncated``,
    ``unsafe_name`` (absolute, with ``..``, a drive), ``not_a_file`` (links, devices, pipes).
    """
    length, at, lost = handle.seek(0, io.SEEK_END), 0, -1
    extended: dict[str, str] = {}
    ended = cut = False
    while at + BLOCK <= length:
        block = _read(handle, at, BLOCK)
        ended = not any(block)
        header = None if ended else _header(block)
        if header is None:
            lost = at if lost < 0 and not ended else lost
            at += BLOCK
            continue
        if lost >= 0:
            yield _lost(lost, at)
            lost, extended = -1, {}
        content, header.size = at + BLOCK, _size(header, extended)
        at = content + (header.size + BLOCK - 1) // BLOCK * BLOCK
        if header.type in _EXTENSIONS:
            extended |= _extension(header, handle, content, length)
            continue
        name = extended.get("path", header.name)
        found, extended = _judged(header, name, content, length, extended), {}
        if found is not None:
            cut = isinstance(found, Refused) and found.reason == "truncated"
            yield found
        if header.type in _KINDS and header.type != tarfile.GNUTYPE_SPARSE:
            at = content  # links and devices have no content, whatever size they state
    if lost >= 0:
        yield _lost(lost, length)
    if not ended and not cut:
        yield Refused(
            "", "truncated", "the archive has no end mark: members may be missing behind its last one"
        )


def _read(handle: BinaryIO, offset: int, size: int) -> bytes:
    handle.seek(offset)
    return handle.read(size)


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header in a block, None where the checksum or a number is wrong."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None


def _lost(start: int, end: int) -> Refused:
    return Refused("", "broken_member", f"bytes {start} to {end} hold no valid header", end - start)


def _size(header: tarfile.TarInfo, extended: dict[str, str]) -> int:
    stated = extended.get("size", "")
    return int(stated) if header.type not in _EXTENSIONS and stated.isdecimal() else header.size


def _extension(header: tarfile.TarInfo, handle: BinaryIO, content: int, length: int) -> dict[str, str]:
    """The fields of a pax or GNU header for the next member; empty where it is too long or damaged."""
    if header.size > _EXTENSION_LIMIT or content + header.size > length:
        return {}
    if header.type == tarfile.GNUTYPE_LONGNAME:
        name = _read(handle, content, header.size).rstrip(b"\0")
        return {"path": name.decode("utf-8", "replace")}
    return _pax(_read(handle, content, header.size)) if header.type in _PAX else {}


def _pax(content: bytes) -> dict[str, str]:
    """Records ``"<length> <key>=<value>\\n"``, the length being that of the record."""
    found = {}
    while match := re.match(rb"(\d{1,6}) ", content):
        length = int(match[1])
        if not match.end() < length <= len(content):
            break
        key, _, value = content[match.end() : length - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        content = content[length:]
    return found


def _judged(
    header: tarfile.TarInfo, name: str, content: int, length: int, extended: dict[str, str]
) -> Member | Refused | None:
    if header.type == tarfile.DIRTYPE:
        return None
    if header.type not in _REGULAR or any(key.startswith("GNU.sparse") for key in extended):
        kind = _KINDS.get(header.type, f"of the type {header.type!r}")
        return Refused(name, "not_a_file", f"{name} is {kind if header.type not in _REGULAR else 'sparse'}")
    if problem := _unsafe(name):
        return Refused(name, "unsafe_name", f"the name {name!r} {problem}")
    if content + header.size > length:
        present = max(0, length - content)
        return Refused(name, "truncated", f"{present} of the {header.size} bytes of {name} are there")
    return Member(name.removeprefix("./"), content, header.size)


def _unsafe(name: str) -> str | None:
    """Why a name would leave the folder that it were extracted into."""
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "is absolute"
    if ".." in parts:
        return "leaves its folder"
    return "holds a null character" if "\0" in name else None
