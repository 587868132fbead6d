"""Whether the end of a sound file is missing, told by its container. Decoders pass over most of this in silence."""

from __future__ import annotations

import io
import re
import struct
from typing import BinaryIO

_OGG_PAGE_MAX = 65_307
_STREAMED_SIZES = range(0x7FFFFF00, 0x100000000)
"""Sizes that a WAV header holds when its writer could not seek back; they say nothing of the real length."""


def missing_end(handle: BinaryIO) -> str | None:
    """What shows that an Ogg or MP3 file is cut short, None where nothing does; ``handle`` ends at its start."""
    head = handle.read(10)
    size = handle.seek(0, io.SEEK_END)
    try:
        if head[:4] == b"OggS":
            handle.seek(max(0, size - 2 * _OGG_PAGE_MAX))
            return None if _ends_ogg_stream(handle.read()) else "the Ogg stream has no last page"
        return _short_mp3(handle, head, size)
    finally:
        handle.seek(0)


def missing_wav_bytes(log: str) -> str | None:
    """The same for a WAV, from libsndfile's log: it takes what is there for the whole, and notes it only there."""
    match = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if match is None:
        return None
    stated, present = int(match[1]), int(match[2])
    if stated <= present or stated in _STREAMED_SIZES:
        return None
    return f"the header states {stated} bytes of sound, {present} are there"


def _ends_ogg_stream(tail: bytes) -> bool:
    """Whether some page in ``tail`` is whole and flagged as the stream's last (RFC 3533); junk behind it is no harm."""
    at = tail.rfind(b"OggS")
    while at >= 0:
        header = tail[at : at + 27]
        if len(header) == 27:
            table = tail[at + 27 : at + 27 + header[26]]
            whole = len(table) == header[26] and at + 27 + len(table) + sum(table) <= len(tail)
            if whole and header[5] & 4:
                return True
        at = tail.rfind(b"OggS", 0, at)
    return False


def _short_mp3(handle: BinaryIO, head: bytes, size: int) -> str | None:
    """Compare the file with the size in its Xing/Info frame, which most encoders write; without one, no verdict."""
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # the tag's length: four times seven bits
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    handle.seek(start)
    frame = handle.read(64)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    at = max(frame.find(b"Xing", 4), frame.find(b"Info", 4))
    if at < 0 or len(frame) < at + 16:
        return None
    flags, frames_or_bytes, second = struct.unpack(">III", frame[at + 4 : at + 16])
    if not flags & 2:
        return None
    stated = second if flags & 1 else frames_or_bytes
    if stated <= size - start:
        return None
    return f"the header states {stated} bytes of sound, {size - start} are there"
