"""Sun/NeXT audio: a header, then samples up to the end. Its size is often left open (all bits set)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from training.data.layout.parts import LayoutError, Section, read_at, seconds, short
from training.data.layout.trailing import end_before_tags, is_text, refuse_other_sound, skip_harmless

_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample by encoding: mu-law, PCM of 8 to 32 bits, float, double, A-law. Others are compressed."""
_HEADER = 24


def au_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sections of the file that begins at ``start``: one, or several where such files were joined.

    Raises `LayoutError` where less sound is there than stated, or more that cannot be told from other bytes.
    """
    head = read_at(handle, start, _HEADER)
    if len(head) < _HEADER:
        return [Section(((start, size),))]
    order = ">" if head[:4] == b".snd" else "<"
    offset, stated, encoding, rate, channels = struct.unpack(f"{order}5I", head[4:])
    block = _BYTES.get(encoding, 0) * channels
    body = start + offset
    if stated == 0 or stated >= 0xFFFFF000 or 0x7FFFF000 <= stated <= 0x80000000:
        end = end_before_tags(handle, body, size, id3=True)
        if block > 1 and is_text(read_at(handle, max(body, end - 24), end - max(body, end - 24))):
            raise LayoutError(
                "the header leaves the length of its sound open, and text follows it: cut the text off"
            )
        return [_section(handle, start, body, end, block, order)]
    if block and stated + -stated % block <= size - body:
        stated += -stated % block
    if stated > size - body:
        raise short(stated, size - body, block * rate, "bytes")
    end = body + stated
    following = skip_harmless(handle, end, size)
    if read_at(handle, following, 4) == head[:4]:
        return [_section(handle, start, body, end, block, order), *au_layout(handle, following, size)]
    if following < size and size - end >= max(2, block):
        length = seconds(stated, block * rate)
        refuse_other_sound(handle, following, size, length)
        raise LayoutError(
            f"the header states {length} of sound ({stated} bytes), and {size - end} bytes follow: the file has room for "
            f"{seconds(size - body, block * rate)}. If they are sound, write the header anew; if not, cut them off"
        )
    return [_section(handle, start, body, end, block, order)]


def _section(handle: BinaryIO, start: int, body: int, end: int, block: int, order: str) -> Section:
    if not block or end <= body:
        return Section(((start, end),))
    end -= (end - body) % block
    header = bytearray(read_at(handle, start, body - start))
    struct.pack_into(f"{order}I", header, 8, min(end - body, 0xFFFFFFFF))
    return Section((bytes(header), (body, end)), (end - body) // block)
