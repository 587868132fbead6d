"""FLAC: the header states the number of samples, or 0 where the encoder could not go back. Frames are numbered.

The last frame's own number tells how many samples there are, without decoding.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from training.data.sound.containers import HEAD_BYTES, MAGIC, identify
from training.data.sound.layout.parts import LayoutError, Section, read_at, short
from training.data.sound.layout.trailing import end_before_tags, occurrences, refuse_other_sound

_MARK = b"fLaC"
_INFO = 34
_TOTAL_BITS = 36
_SYNC = re.compile(rb"\xff[\xf8\xf9]", re.DOTALL)
_OTHER = re.compile(
    rb"RIFF|RF64|RIFX|BW64|riff|FORM|OggS|ftyp|moov|\x0b\x77|(?=G.{187}G.{187}G)|"
    + b"|".join(re.escape(mark) for mark, _ in MAGIC),
    re.DOTALL,
)
"""What the beginning of another sound file may look like."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """The fields of STREAMINFO; ``at``: offset of its content, ``total``: samples, 0 for unknown."""

    start: int
    at: int
    block: int
    rate: int
    channels: int
    bits: int
    total: int

    @property
    def longest(self) -> int:
        """Bytes of a frame whose samples are not compressed: none is longer."""
        return 64 + self.channels * (16 + self.block * (self.bits + 1) // 8)


def flac_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sections of the FLAC file that begins at ``start``: one, or several where such files were joined.

    Raises `LayoutError` where frames are missing at its end, and where a file of another kind follows.
    """
    end = end_before_tags(handle, start, size)
    streams = [one for at in occurrences(handle, _MARK, start, end) if (one := _stream(handle, at, end))]
    if not streams or streams[0].start != start:
        return [Section(((start, size),))]
    stops = [*(one.start for one in streams[1:]), end]
    sections = [_section(handle, one, stop) for one, stop in zip(streams, stops, strict=True)]
    if len(sections) == 1 and sections[0].pieces == ((start, end),):
        return [Section(((start, size),), sections[0].frames)]
    return sections


def _stream(handle: BinaryIO, start: int, end: int) -> _Stream | None:
    """The stream whose mark stands at ``start``; None where no STREAMINFO follows it."""
    head = read_at(handle, start, min(8 + _INFO, end - start))
    if len(head) < 8 + _INFO or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != _INFO:
        return None
    smallest, block = struct.unpack(">HH", head[8:12])
    packed = int.from_bytes(head[18:26], "big")
    rate, total = packed >> 44, packed & (1 << _TOTAL_BITS) - 1
    if not rate or block < 16 or smallest > block:
        return None
    unknown = total == (1 << _TOTAL_BITS) - 1
    return _Stream(
        start,
        start + 8,
        block,
        rate,
        (packed >> 41 & 7) + 1,
        (packed >> 36 & 31) + 1,
        0 if unknown else total,
    )


def _section(handle: BinaryIO, stream: _Stream, stop: int) -> Section:
    last = _last_frame(handle, stream, stop)
    if last is None:
        return Section(((stream.start, stop),), stream.total or None)
    at, counted = last
    if counted < stream.total:
        raise short(stream.total, counted, stream.rate, "samples")
    _refuse_other(handle, stream, at, stop, counted)
    if counted == stream.total:
        return Section(((stream.start, stop),), counted)
    info = bytearray(read_at(handle, stream.at, _INFO))
    packed = int.from_bytes(info[10:18], "big")
    packed = packed >> _TOTAL_BITS << _TOTAL_BITS | counted
    info[10:18] = packed.to_bytes(8, "big")
    info[18:34] = bytes(16)  # the checksum of another length
    return Section(((stream.start, stream.at), bytes(info), (stream.at + _INFO, stop)), counted)


def _refuse_other(handle: BinaryIO, stream: _Stream, at: int, stop: int, counted: int) -> None:
    """Look behind the last frame, which begins at ``at`` and is no longer than its samples are without compression."""
    length = f"{counted / stream.rate:.3f} s"
    data = read_at(handle, at, min(stop - at, stream.longest + HEAD_BYTES))
    if _OTHER.search(data):
        for end in _frame_ends(data):
            refuse_other_sound(handle, at + end, stop, length)
    refuse_other_sound(handle, min(at + stream.longest, stop), stop, length)
    first = max(at + 1, stop - HEAD_BYTES)
    if (other := identify(b"\0" + read_at(handle, first, stop - first))) in ("mp3", "adts"):
        raise LayoutError(
            f"after its sound ({length}) another file follows ({other}): split it into two files"
        )


def _frame_ends(data: bytes) -> list[int]:
    """Offsets in ``data``, which begins with a frame, at which its checksum is right: its end, and few by chance."""
    value, ends = 0, []
    for at, byte in enumerate(data, 1):
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
        if not value:
            ends.append(at)
    return ends


def _last_frame(handle: BinaryIO, stream: _Stream, stop: int) -> tuple[int, int] | None:
    """Offset of the last frame and the number of samples up to its end; None where no frame is found."""
    reach = 2 * stream.longest
    while True:
        start = max(stream.at + _INFO, stop - reach)
        data = read_at(handle, start, stop - start)
        found = _last_linked(stream, data)
        if found is not None:
            return start + found[0], found[1]
        if start == stream.at + _INFO:
            return None
        reach *= 8


def _last_linked(stream: _Stream, data: bytes) -> tuple[int, int] | None:
    """The last frame in ``data`` that another one leads to, or that is the first of all: chance makes no such pair."""
    ends: set[int] = {0}
    best: tuple[int, int] | None = None
    for match in _SYNC.finditer(data):
        frame = _frame(stream, data[match.start() : match.start() + 16])
        if frame is None:
            continue
        first, stop = frame
        if first in ends:
            best = (match.start(), stop)
        ends.add(stop)
    return best


def _frame(stream: _Stream, head: bytes) -> tuple[int, int] | None:
    """First sample and the one behind the last of the frame that ``head`` begins; None where it begins none."""
    if len(head) < 6 or head[3] & 1 or head[2] >> 4 == 0:
        return None
    channels, bits = head[3] >> 4, head[3] >> 1 & 7
    if (channels + 1 if channels < 8 else 2) != stream.channels or channels > 10:
        return None
    if bits and {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}.get(bits) != stream.bits:
        return None
    number, at = _coded_number(head, 4)
    if number is None:
        return None
    code = head[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(head[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    rate = head[2] & 15
    at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if rate == 15 or at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    first = number if head[1] & 1 else number * stream.block
    return first, first + size


def _coded_number(head: bytes, at: int) -> tuple[int | None, int]:
    """A number written like a UTF-8 character of up to seven bytes, and the offset behind it."""
    lead = head[at]
    if lead < 0x80:
        return lead, at + 1
    ones = 8 - (lead ^ 0xFF).bit_length()
    following = head[at + 1 : at + ones]
    if ones < 2 or ones > 7 or len(following) < ones - 1 or any(byte & 0xC0 != 0x80 for byte in following):
        return None, at
    value = lead & (1 << 7 - ones) - 1 if ones < 7 else 0
    for byte in following:
        value = value << 6 | byte & 0x3F
    return value, at + ones


def _table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial) & mask if value & top else value << 1
        table.append(value)
    return table


_CRC8 = _table(0x07, 8)
_CRC16 = _table(0x8005, 16)


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
