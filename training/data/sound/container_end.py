"""Whether a file that ffmpeg decodes ends where its container says, told by the container's own outline.

ffmpeg reads what it finds: it passes over a second file behind the first, and over some ends that are missing, in
silence. (Joined streams of MPEG, ADTS and AC-3 it reads, and it reports cut ones: only another kind behind them is
looked for.)
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from training.data.sound.containers import adts_frame_length
from training.data.sound.layout.trailing import id3_length, other_sound

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_NAMES = {_ASF_HEADER: "header", bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"): "data"}
_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"free", b"skip", b"wide", b"uuid", b"meta"}
)
_LONGEST_UNKNOWN_BOX = 1 << 20
_CAF_CHUNKS = frozenset(
    {
        *(b"desc", b"data", b"pakt", b"kuki", b"chan", b"free", b"info", b"mark", b"regn", b"inst", b"midi"),
        b"uuid",
    }
)
_RIFF_UNKNOWN = (0, 0xFFFFFFFF)
_AMR = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
_AMR_WIDE = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)
"""Bytes of a frame of 20 ms by its kind (RFC 4867); 0: there is none."""
_FRAME = "frame"
"""What a part of a stream is called: it has no beginning of its own, and ffmpeg reports one that is cut off."""
_TS_PACKET, _TS_PACKETS_AT_ONCE = 188, 4096
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_WAVPACK_UNKNOWN = 0xFFFFFFFF
_Part = tuple[str, int]
"""What a part of a file is called, and its bytes from its first to the next part's; 0: up to the file's end."""


def wrong_end(handle: BinaryIO, container: str) -> str | None:
    """What shows that the file is cut short, or that a second one lies behind it; None where nothing does.

    handle: ends at its start. container: by `training.data.sound.containers.identify`.
    """
    outline = _OUTLINES.get(container)
    handle.seek(0)
    try:
        if container == "amr":
            return _wrong_amr(handle.read())
        if container == "wavpack":
            return _wrong_wavpack(handle)
        return None if outline is None else _wrong_part(handle, *outline)
    finally:
        handle.seek(0)


def _wrong_part(
    handle: BinaryIO, header: int, part_of: Callable[[bytes], _Part | None], first: str
) -> str | None:
    size = handle.seek(0, io.SEEK_END)
    seen, end = False, 0
    for at, (name, length) in _parts(handle, size, header, part_of):
        if name == first and seen:
            return f"a second file begins at byte {at}, and only the first would be read: part them"
        if name != _FRAME and at + length > size:
            return f"truncated: its part “{name}” at byte {at} states {length} bytes, {size - at} are there"
        seen, end = True, at + length if length else size
    other = other_sound(handle, end, size) if seen and end < size else None
    return other and f"behind its sound, which ends at byte {end}, {other}"


def _wrong_amr(content: bytes) -> str | None:
    """AMR is frames and nothing else. ffmpeg makes sound of nearly all bytes: a frame that none can be is foreign."""
    wide = content.startswith(b"#!AMR-WB\n")
    lengths = _AMR_WIDE if wide else _AMR
    at = 9 if wide else 6
    while at < len(content):
        kind = content[at]
        length = lengths[kind >> 3 & 15]
        frame = content[at : at + length]
        if kind & 0x83 or not length or not any(frame):
            return f"holds bytes that are no sound from byte {at} of {len(content)} on: cut them off, or part joined files"
        if len(frame) < length:
            return f"truncated: its last frame needs {length} bytes, {len(frame)} are there"
        at += length
    return None


def _wrong_wavpack(handle: BinaryIO) -> str | None:
    """Every block says which samples it holds, and of how many."""
    at, stated, held = 0, _WAVPACK_UNKNOWN, 0
    while len(header := handle.read(32)) == 32 and header[:4] == b"wvpk":
        length, total, first, count = struct.unpack("<4xI4x3I8x", header)
        stated = total if at == 0 else stated
        held = max(held, first + count)
        at += 8 + length
        handle.seek(at)
    if stated == _WAVPACK_UNKNOWN or held >= stated:
        return None
    return f"truncated: the header states {stated} samples, {held} are there"


def _parts(
    handle: BinaryIO, size: int, header: int, part_of: Callable[[bytes], _Part | None]
) -> Iterator[tuple[int, _Part]]:
    """The parts in their order up to bytes that begin none: junk behind the last one is no harm."""
    at = 0
    while at < size:
        handle.seek(at)
        part = part_of(handle.read(header))
        if part is None:
            return
        yield at, part
        if part[1] == 0:
            return
        at += part[1]


def _box(head: bytes) -> _Part | None:
    """MP4: size and type, or a size of 64 bits behind the type."""
    if len(head) < 8 or not (head[4:8].isascii() and head[4:8].decode("ascii").isprintable()):
        return None
    (length,) = struct.unpack(">I", head[:4])
    if length == 1:
        length = struct.unpack(">Q", head[8:16])[0] if len(head) == 16 else 16
    elif 0 < length < 8:
        return None
    if head[4:8] not in _BOXES and length > _LONGEST_UNKNOWN_BOX:
        return None  # junk behind the last box, a text perhaps, and not a size
    return head[4:8].decode("ascii").strip(), length


def _riff(head: bytes) -> _Part | None:
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] not in (b"AVI ", b"AVIX"):
        return None
    (length,) = struct.unpack("<I", head[4:8])
    return "RIFF", 0 if length in _RIFF_UNKNOWN else 8 + length + length % 2


def _asf_object(head: bytes) -> _Part | None:
    if len(head) < 24:
        return None
    (length,) = struct.unpack("<Q", head[16:24])
    known = head[16:24] != b"\xff" * 8 and length >= 24
    name = _ASF_NAMES.get(head[:16])
    if name is None and (not known or length > 1 << 40):
        return None
    return name or "index", length if known else 0


def _caf_chunk(head: bytes) -> _Part | None:
    if head[:4] == b"caff":
        return "caff", 8
    if len(head) < 12 or head[:4] not in _CAF_CHUNKS:
        return None
    (length,) = struct.unpack(">q", head[4:12])
    return head[:4].decode("ascii"), 0 if length < 0 else 12 + length


def _flv_tag(head: bytes) -> _Part | None:
    if head[:3] == b"FLV":
        return "FLV", 9 + 4
    if len(head) < 11 or head[0] & 0x1F not in (8, 9, 18):
        return None
    return "tag", 11 + int.from_bytes(head[1:4], "big") + 4


def _matroska_element(head: bytes) -> _Part | None:
    """The header or the segment; both have identifiers of four bytes, then a size whose first byte tells its length."""
    name = {b"\x1a\x45\xdf\xa3": "header", b"\x18\x53\x80\x67": "segment"}.get(head[:4])
    if name is None or len(head) < 12 or head[4] == 0:
        return None
    width = 9 - head[4].bit_length()
    bits = (1 << 7 * width) - 1
    stated = int.from_bytes(head[4 : 4 + width], "big") & bits
    return name, 0 if stated == bits else 4 + width + stated  # all ones: a recorder that does not know it yet


def _adts_frame(head: bytes) -> _Part | None:
    length = id3_length(head) or adts_frame_length(head)
    return (_FRAME, length) if length else None


def _ac3_frame(head: bytes) -> _Part | None:
    if len(head) < 6 or head[:2] != b"\x0b\x77":
        return None
    if head[5] >> 3 > 10:  # E-AC-3 states its length
        return _FRAME, 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code >> 1 >= len(_AC3_KBITS):
        return None
    kbits = _AC3_KBITS[code >> 1]
    return _FRAME, (4 * kbits, 2 * (kbits * 320 // 147 + code % 2), 6 * kbits)[rate]


def _ts_packets(head: bytes) -> _Part | None:
    marks = head[::_TS_PACKET]
    count = len(marks) - len(marks.lstrip(b"\x47"))
    return (_FRAME, count * _TS_PACKET) if count else None


def _mpeg_pack(head: bytes) -> _Part | None:
    """The header of a pack (MPEG 1 or 2), a packet, or the mark of the end."""
    if len(head) < 4 or head[:3] != b"\0\0\x01" or head[3] < 0xB9:
        return None
    if head[3] == 0xB9:
        return _FRAME, 4
    if len(head) < 14:
        return None
    if head[3] == 0xBA:
        return _FRAME, 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
    return _FRAME, 6 + int.from_bytes(head[4:6], "big")


_OUTLINES: dict[str, tuple[int, Callable[[bytes], _Part | None], str]] = {
    "mov": (16, _box, "ftyp"),
    "avi": (12, _riff, ""),
    "asf": (24, _asf_object, "header"),
    "caf": (12, _caf_chunk, "caff"),
    "matroska": (12, _matroska_element, "header"),
    "flv": (11, _flv_tag, "FLV"),
    "adts": (10, _adts_frame, ""),
    "ac3": (6, _ac3_frame, ""),
    "eac3": (6, _ac3_frame, ""),
    "mpegts": (_TS_PACKET * _TS_PACKETS_AT_ONCE, _ts_packets, ""),
    "mpeg": (14, _mpeg_pack, ""),
}
"""By container: bytes of a part's header, what reads it, and the name of the part that a file begins with ("": none that only
a file's beginning has)."""
