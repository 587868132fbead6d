"""Creative Voice: blocks of a type and a length. libsndfile takes all bytes behind the first block's header for samples."""

from __future__ import annotations

from typing import BinaryIO

from training.data.sound.layout.parts import LayoutError, Section, read_at
from training.data.sound.layout.trailing import refuse_other_sound

_END = 0
_SOUND = (1, 2, 9)
_KNOWN = range(10)


def voc_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The section of the file that begins at ``start``, up to the end of its last block.

    Raises `LayoutError` for several blocks of sound, a block that is cut off, and another file behind the last one.
    """
    at = start + int.from_bytes(read_at(handle, start + 20, 2), "little")
    end = None
    while len(head := read_at(handle, at, min(4, size - at))) == 4 and head[0] in _KNOWN and head[0] != _END:
        stop = at + 4 + int.from_bytes(head[1:], "little")
        if stop > size:
            raise LayoutError(f"truncated: a block states {stop - at - 4} bytes, {size - at - 4} are there")
        if head[0] in _SOUND:
            if end is not None:
                raise LayoutError("holds several blocks of sound, of which only the first could be read")
            end = stop
        at = stop
    at += head[:1] == bytes([_END])
    refuse_other_sound(handle, at, size, "VOC")
    return [Section(((start, size if end is None else at),))]
