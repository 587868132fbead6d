"""Sun/NeXT audio: a header, then samples up to the end. Its size is often left open (all bits set)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from training.data.sound.layout.parts import Section, read_at
from training.data.sound.layout.raw import end_of_raw

_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample by encoding: mu-law, PCM of 8 to 32 bits, float, double, A-law. Others are compressed."""
_HEADER = 24


def au_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sections of the file that begins at ``start``: one, or several where such files were joined.

    Raises `training.data.sound.layout.parts.LayoutError` where less sound is there than stated, or more that cannot be told from other bytes.
    """
    head = read_at(handle, start, _HEADER)
    if len(head) < _HEADER:
        return [Section(((start, size),))]
    order = ">" if head[:4] == b".snd" else "<"
    offset, stated, encoding, rate, channels = struct.unpack(f"{order}5I", head[4:])
    block = _BYTES.get(encoding, 0) * channels
    body = start + offset
    if stated >= 0xFFFFF000 or 0x7FFFF000 <= stated <= 0x80000000:
        stated = 0
    if block and stated + -stated % block <= size - body:
        stated += -stated % block
    raw = end_of_raw(handle, body, stated, size, block, rate, head[:4])
    section = _section(handle, start, body, raw.end, block, order)
    return [section] if raw.following is None else [section, *au_layout(handle, raw.following, size)]


def _section(handle: BinaryIO, start: int, body: int, end: int, block: int, order: str) -> Section:
    if not block or end <= body:
        return Section(((start, end),))
    end -= (end - body) % block
    header = bytearray(read_at(handle, start, body - start))
    struct.pack_into(f"{order}I", header, 8, min(end - body, 0xFFFFFFFF))
    return Section((bytes(header), (body, end)), (end - body) // block)
