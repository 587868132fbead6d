"""Ogg: pages of numbered streams. A file may hold several sounds one after the other (a chain, RFC 3533)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from training.data.sound.layout.parts import LayoutError, Piece, Section, read_at
from training.data.sound.layout.trailing import occurrences, refuse_other_sound

_MARK = b"OggS"
_FIRST, _LAST = 2, 4
_HEADER = 27
_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")


@dataclass
class _Link:
    """The pages from the first ones of some streams to the next such; ``serial``: that of the sound."""

    pieces: list[tuple[int, int]] = field(default_factory=list)
    serial: int | None = None
    starting: bool = True
    ended: bool = False

    def add(self, start: int, stop: int) -> None:
        """One page more."""
        if self.pieces and self.pieces[-1][1] == start:
            self.pieces[-1] = (self.pieces[-1][0], stop)
        else:
            self.pieces.append((start, stop))


def ogg_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sections of the chain that begins at ``start``; page headers are read, nothing is decoded.

    Raises `LayoutError` for a sound whose last page is missing, and where a file of another kind follows.
    """
    links: list[_Link] = []
    at = start
    while (head := _page(handle, at, size)) is not None:
        if head[:4] != _MARK:
            at = _next_page(handle, at, size)
            continue
        table = head[_HEADER : _HEADER + head[26]]
        stop = at + _HEADER + len(table) + sum(table)
        if stop > size or len(table) < head[26]:
            raise LayoutError("truncated: the last page of the Ogg stream is cut off")
        _note(links, handle, head, at, stop, _HEADER + len(table))
        at = stop
    for number, link in enumerate(links or [_Link()], 1):
        if not link.ended:
            place = f" (sound {number} of {len(links)} in the file)" if len(links) > 1 else ""
            raise LayoutError(f"truncated: the Ogg stream{place} has no last page")
    return [Section(tuple[Piece, ...](link.pieces)) for link in links]


def _page(handle: BinaryIO, at: int, size: int) -> bytes | None:
    """The header of a page and its table, None behind the last whole one."""
    head = read_at(handle, at, _HEADER + 255) if at < size else b""
    return head if len(head) >= _HEADER else None


def _next_page(handle: BinaryIO, at: int, size: int) -> int:
    """Where the next page begins; bytes between pages are passed over, unless they are a file of another kind."""
    found = next(occurrences(handle, _MARK, at, size), size)
    refuse_other_sound(handle, at, found, "Ogg")
    return found


def _note(links: list[_Link], handle: BinaryIO, head: bytes, at: int, stop: int, content: int) -> None:
    (serial,) = struct.unpack("<I", head[14:18])
    if head[5] & _FIRST:
        if not links or not links[-1].starting:
            links.append(_Link())
        if links[-1].serial is None and read_at(handle, at + content, 8).startswith(_CODECS):
            links[-1].serial = serial
    elif links:
        links[-1].starting = False
    if not links:
        links.append(_Link())
    links[-1].add(at, stop)
    if head[5] & _LAST and links[-1].serial in (None, serial):
        links[-1].ended = True
