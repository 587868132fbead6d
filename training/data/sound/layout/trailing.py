"""What may lie behind the sound of a file without being sound: tags and zeros. Anything else is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from training.data.sound.containers import HEAD_BYTES, identify
from training.data.sound.layout.parts import LayoutError, read_at

_BLOCK = 1 << 20
_ID3V1 = 128
_APE = 32


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that the ten bytes ``head`` begin, 0 where they begin none."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + footer + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


def tag_length(handle: BinaryIO, at: int, end: int) -> int:
    """Bytes of the tag (ID3v2, ID3v1, APE, Lyrics3) that begins at ``at``, 0 where none does."""
    head = read_at(handle, at, min(_APE, end - at))
    length = id3_length(head[:10])
    if head[:3] == b"TAG" and end - at >= _ID3V1:
        length = _ID3V1
    elif head[:8] == b"APETAGEX" and len(head) == _APE:
        length = _APE + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    elif head[:11] == b"LYRICSBEGIN":
        found = read_at(handle, at, min(_BLOCK, end - at)).find(b"LYRICS200")
        length = found + 9 if found > 0 else 0
    return length if 0 < length <= end - at else 0


def end_before_tags(handle: BinaryIO, start: int, end: int, *, id3: bool = False) -> int:
    """Where the bytes from ``start`` on end when the tags at their end (ID3v1, APE, Lyrics3) are left out.

    ``id3``: ID3v2 as well, which is written in front and looked for only where nothing else bounds the sound.
    """
    while True:
        tail = read_at(handle, max(start, end - _ID3V1), min(_ID3V1, end - start))
        if len(tail) == _ID3V1 and tail[:3] == b"TAG":
            end -= _ID3V1
        elif tail[-_APE:][:8] == b"APETAGEX":
            footer = tail[-_APE:]
            length = int.from_bytes(footer[12:16], "little") + (_APE if footer[23] & 0x80 else 0)
            if not _APE <= length <= end - start:
                return end
            end -= length
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            length = int(tail[-15:-9]) + 15
            if length > end - start:
                return end
            end -= length
        elif id3 and (at := _last_id3(handle, start, end)) is not None:
            end = at
        else:
            return end


def _last_id3(handle: BinaryIO, start: int, end: int) -> int | None:
    """Where an ID3v2 tag begins that ends at ``end``."""
    first = max(start, end - _BLOCK)
    tail = read_at(handle, first, end - first)
    at = tail.rfind(b"ID3")
    while at >= 0:
        if id3_length(tail[at : at + 10]) == len(tail) - at:
            return first + at
        at = tail.rfind(b"ID3", 0, at)
    return None


def skip_harmless(handle: BinaryIO, at: int, end: int) -> int:
    """The first offset from ``at`` on that is neither a zero nor in a tag; ``end`` where there is none."""
    while at < end:
        length = tag_length(handle, at, end)
        if length:
            at += length
            continue
        block = read_at(handle, at, min(_BLOCK, end - at))
        rest = block.lstrip(b"\0")
        at += len(block) - len(rest)
        if rest and not tag_length(handle, at, end):
            return at
        if not block:
            return end
    return at


def other_sound(handle: BinaryIO, at: int, end: int) -> str | None:
    """What to say where another sound file begins at ``at``, or behind zeros and tags there; None where none does."""
    at = skip_harmless(handle, at, end)
    head = read_at(handle, at, min(HEAD_BYTES, end - at))
    # Some begin with up to three zeros themselves (MP4, MPEG), which were passed over.
    found = (identify(bytes(zeros) + head) for zeros in range(4)) if head else ()
    name = next((one for one in found if one is not None), None)
    return name and f"another file follows ({name}, {end - at} bytes): split it into two files"


def refuse_other_sound(handle: BinaryIO, at: int, end: int, stated: str) -> None:
    """`LayoutError` where the bytes that no decoder looks at begin another sound file. ``stated``: what is read."""
    if (other := other_sound(handle, at, end)) is not None:
        raise LayoutError(f"after its sound ({stated}) {other}")


def is_text(data: bytes) -> bool:
    """Whether all of ``data`` is printable ASCII, and there is enough of it to say so."""
    return len(data) >= 16 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in data)


def occurrences(handle: BinaryIO, mark: bytes, at: int, end: int) -> Iterator[int]:
    """Offsets of ``mark`` in the bytes from ``at`` to ``end``, which are read one block at a time."""
    while at < end:
        block = read_at(handle, at, min(_BLOCK + len(mark) - 1, end - at))
        found = block.find(mark)
        while found >= 0:
            yield at + found
            found = block.find(mark, found + 1)
        at += _BLOCK
