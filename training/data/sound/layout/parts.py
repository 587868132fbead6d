"""Parts of a file that a decoder takes for a file of its own: header bytes that are put right, and byte ranges."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

_BUFFER = 1 << 16
Piece = bytes | tuple[int, int]
"""Bytes to put in this place, or the file's bytes from the first offset to the one before the second."""


class LayoutError(ValueError):
    """Less or more sound than the header states, in a way that cannot be read: what is stated, what is there."""


@dataclass(frozen=True, slots=True)
class Section:
    """A whole sound in the container's own format; a file is one of them, or several that were joined.

    ``frames``: samples per channel that a decoder must find in it; None where only the decoder can tell.
    ``estimated``: nothing in it tells its length, and the decoder's number is a guess by the bit rate.
    """

    pieces: tuple[Piece, ...]
    frames: int | None = None
    estimated: bool = False


def whole(size: int) -> Section:
    """A file of ``size`` bytes as it is."""
    return Section(((0, size),))


def opened(handle: BinaryIO, section: Section) -> BinaryIO:
    """The section as a file to read; ``handle`` itself where the section is all of it, as it is."""
    if section.pieces == ((0, handle.seek(0, io.SEEK_END)),):
        handle.seek(0)
        return handle
    return io.BufferedReader(_Joined(handle, section.pieces), _BUFFER)


class _Joined(io.RawIOBase):
    """Pieces one after the other, read-only; ``handle`` stays open and its position is not kept."""

    def __init__(self, handle: BinaryIO, pieces: Sequence[Piece]) -> None:
        self.handle, self.pieces = handle, list(pieces)
        lengths = [len(one) if isinstance(one, bytes) else one[1] - one[0] for one in self.pieces]
        self.starts = [0, *accumulate(lengths)]
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.starts[-1]}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there are bytes, over the borders of pieces: libsndfile asks once."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and self.at < self.starts[-1]:
            number = bisect_right(self.starts, self.at) - 1
            inside = self.at - self.starts[number]
            wanted = min(len(view) - done, self.starts[number + 1] - self.at)
            data = self._bytes(self.pieces[number], inside, wanted)
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
            self.at += len(data)
        return done

    def _bytes(self, piece: Piece, inside: int, wanted: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[inside : inside + wanted]
        self.handle.seek(piece[0] + inside)
        return self.handle.read(wanted)


def read_at(handle: BinaryIO, at: int, count: int) -> bytes:
    """Up to ``count`` bytes from offset ``at`` on."""
    handle.seek(at)
    return handle.read(max(0, count))


def seconds(count: float, rate: float) -> str:
    """``count`` samples (or bytes) at ``rate`` a second, for a message."""
    return f"{count / rate:.3f} s" if rate else "an unknown length"


def short(stated: float, present: float, rate: float, unit: str) -> LayoutError:
    """The error for a header that states more than there is."""
    return LayoutError(
        f"truncated: the header states {seconds(stated, rate)} of sound ({stated:.0f} {unit}), "
        f"{seconds(present, rate)} ({present:.0f} {unit}) are there"
    )
