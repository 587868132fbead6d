"""Files of chunks: WAV (RIFF, RIFX, RF64), Wave64 and AIFF. Where their samples really end.

A header is written before its sound: a writer that was stopped leaves a size of zero or of an earlier moment, one
that writes to a pipe leaves one that stands for "unknown". What follows the samples tells more: a chunk, a tag,
zeros, or more samples.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from training.data.sound.layout.parts import LayoutError, Piece, Section, read_at, seconds, short
from training.data.sound.layout.trailing import (
    end_before_tags,
    is_text,
    occurrences,
    refuse_other_sound,
    skip_harmless,
    tag_length,
)

_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_GUID_END = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_NAMES = (
    "LIST id3  ID3  bext cue  smpl inst fact PEAK JUNK junk FLLR PAD  iXML axml chna _PMX afsp "
    "DISP acid plst labl strc r64m ds64 aXML umid CSET levl minf elm1 regn MARK INST MIDI AESD "
    "APPL COMT NAME AUTH (c)  ANNO FVER SAUR COMM CHAN data SSND fmt  bxml sxml logs ISFT DGDA "
    "Cr8r link wavl slnt "
)
_KNOWN = frozenset(_NAMES[at : at + 4].encode() for at in range(0, len(_NAMES), 5))
"""Names of chunks, each of four characters."""
_TEXT = 24
"""Bytes of text in a row that no samples are: of 16 bits, they would be so by chance once in 10 billion files."""
_TAIL = 1 << 18
"""Bytes before the end of a file in which chunks behind the samples are looked for, where the header is wrong."""
_SAMPLE_BYTES = {1: 1, 3: 1, 6: 1, 7: 1, 0xFFFE: 1}
"""WAVE format tags whose blocks hold one sample of each channel: PCM, float, A-law, mu-law, extensible."""
_AIFC_PLAIN = frozenset(
    {b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32"}
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the chunks of a container are written. ``counts_itself``: a size includes the chunk's own header."""

    id_bytes: int
    size: str
    counts_itself: bool
    align: int
    data: bytes

    @property
    def size_bytes(self) -> int:
        return struct.calcsize(self.size)

    @property
    def header(self) -> int:
        return self.id_bytes + self.size_bytes


@dataclass(slots=True)
class _Sound:
    """The values of the header. Offsets are the file's; ``stated`` is in bytes, None for unknown, ``written``
    the same as it stands there; ``end``: of the container."""

    start: int
    body: int
    stated: int | None
    end: int | None
    block: int = 0
    rate: int = 0
    format: int = 0
    ds64: int = 0
    comm: int = 0
    written: int | None = None
    frames: int | None = None
    byte_rate: float = 0.0

    @property
    def plain(self) -> bool:
        return self.block > 0


_RIFF = _Kind(4, "<I", False, 2, b"data")
_KINDS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"RIFX": _Kind(4, ">I", False, 2, b"data"),
    b"FORM": _Kind(4, ">I", False, 2, b"SSND"),
    b"riff": _Kind(16, "<Q", True, 8, b"data" + _GUID_END),
}


def chunk_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """Sections of the file of chunks that begins at ``start``: one, or several where such files were joined.

    Raises `LayoutError` where less sound is there than stated, or more that cannot be told from other bytes.
    """
    sections: list[Section] = []
    while start < size:
        kind = _KINDS[read_at(handle, start, 4)]
        sound = _header(handle, kind, start, size)
        if sound is None:
            raise LayoutError("cannot be decoded: its header ends before the chunk of its sound")
        end = _end_of_samples(handle, kind, sound, size)
        after = _after_chunks(handle, kind, end, size, sound.end)
        following = skip_harmless(handle, after, size)
        joined = _begins(handle, following, size)
        sections.append(_section(handle, kind, sound, end, following if joined else size))
        if not joined:
            _refuse_rest(handle, sound, end, after, size)
            break
        start = following
    return sections


def _begins(handle: BinaryIO, at: int, size: int) -> bool:
    head = read_at(handle, at, min(40, size - at))
    return head[:16] == _W64 or (
        head[:4] in (b"RIFF", b"RF64", b"RIFX", b"FORM") and head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    )


def _unknown(stated: int, kind: _Kind) -> int | None:
    """None for sizes that stand for "unknown": all bits, the largest signed number, and a little less than those."""
    bits = (32, 64)[: kind.size_bytes // 4]
    unknown = any(limit - 0x1000 <= stated <= limit for one in bits for limit in (1 << one, 1 << one - 1))
    return None if unknown else stated


def _header(handle: BinaryIO, kind: _Kind, start: int, size: int) -> _Sound | None:
    """What the chunks up to the samples say; None where no chunk of samples follows."""
    first = start + (40 if kind.id_bytes == 16 else 12)
    (stated_end,) = struct.unpack(kind.size, read_at(handle, start + kind.id_bytes, kind.size_bytes))
    end = _unknown(stated_end, kind)
    sound = _Sound(start, 0, None, None if not end else start + end + (0 if kind.counts_itself else 8))
    at = first
    while at + kind.header <= size:
        name, body, length = _chunk(handle, kind, at)
        if name[:4] in (b"fmt ", b"COMM"):
            _format(sound, kind, body, read_at(handle, body, min(length, 64)))
        elif name == b"ds64":
            sound.ds64 = body
            sound.end = _ds64_end(handle, start, body)
        elif name == kind.data:
            sound.body = body
            _set_stated(handle, sound, kind, length)
            return sound
        at = body + length + -length % kind.align
    return None


def _chunk(handle: BinaryIO, kind: _Kind, at: int) -> tuple[bytes, int, int]:
    """Name, offset of the content and its length, as stated."""
    head = read_at(handle, at, kind.header)
    (length,) = struct.unpack(kind.size, head[kind.id_bytes :])
    return (
        head[: kind.id_bytes],
        at + kind.header,
        max(0, length - (kind.header if kind.counts_itself else 0)),
    )


def _ds64_end(handle: BinaryIO, start: int, body: int) -> int | None:
    (stated,) = struct.unpack("<Q", read_at(handle, body, 8))
    known = None if stated == 0 else _unknown(stated, _KINDS[b"riff"])
    return None if known is None else start + known + 8


def _format(sound: _Sound, kind: _Kind, body: int, content: bytes) -> None:
    """Bytes per block (one sample of each channel; 0 for compressed formats) and blocks per second."""
    if kind.data == b"SSND":
        if len(content) < 18:
            return
        channels, frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", content[:18])
        sound.comm = body
        sound.rate = round(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16_446))
        if content[18:22] in _AIFC_PLAIN or len(content) < 22:
            sound.block = channels * -(-bits // 8)
            sound.frames = frames if _unknown(frames, kind) else None
        return
    if len(content) < 16:
        return
    order = kind.size[0]
    sound.format, _, sound.rate, byte_rate, block, _ = struct.unpack(f"{order}HHIIHH", content[:16])
    sound.block = block if sound.format in _SAMPLE_BYTES else 0
    sound.byte_rate = byte_rate


def _set_stated(handle: BinaryIO, sound: _Sound, kind: _Kind, length: int) -> None:
    if kind.data == b"SSND":
        (offset,) = struct.unpack(">I", read_at(handle, sound.body, 8).ljust(8, b"\0")[:4])
        known = _unknown(length, kind)
        skipped = 8 + offset
        sound.body += skipped
        sound.stated = None if known is None or length <= skipped else length - skipped
        if length <= skipped:
            sound.stated = 0
    elif sound.ds64 and length == 0xFFFFFFFF:
        (stated,) = struct.unpack("<Q", read_at(handle, sound.ds64 + 8, 8))
        sound.stated = _unknown(stated, _KINDS[b"riff"])
    else:
        known = _unknown(length + (kind.header if kind.counts_itself else 0), kind)
        sound.stated = None if known is None else length
    sound.written = sound.stated
    if sound.block:
        sound.byte_rate = sound.block * sound.rate


def _end_of_samples(handle: BinaryIO, kind: _Kind, sound: _Sound, size: int) -> int:
    """The offset behind the last sample. Raises `LayoutError` where less is there than stated."""
    present = size - sound.body
    if sound.stated is not None and sound.stated > present:
        raise short(sound.stated, present, sound.byte_rate, "bytes")
    _check_comm(sound, present)
    end = sound.body + (sound.stated or 0)
    _refuse_swallowed_tag(handle, sound, end, size)
    if sound.stated and _is_end(handle, kind, sound, end, size):
        return end
    if sound.stated == 0 and _after_chunks(handle, kind, end, size, None) > end:
        return end  # an empty chunk with others behind it: written so, not left so
    limit = size
    if sound.stated and sound.end is not None:
        if sound.end > size + 8:
            raise short(sound.end - sound.start, size - sound.start, sound.byte_rate, "bytes with the header")
        limit = sound.end
    elif sound.end is not None and sound.body + 8 < sound.end < size:
        limit = sound.end
    if sound.stated:
        _refuse_text(sound, read_at(handle, end, min(_TAIL, size - end)), end)
    refuse_other_sound(handle, end, size, seconds(end - sound.body, sound.byte_rate))
    limit = _next_header(handle, end, min(limit, size))
    found = _chunks_at_end(handle, kind, sound, limit)
    if found == limit:  # else a tag is the content of a chunk
        limit = end_before_tags(handle, end, limit, id3=True)
        found = _chunks_at_end(handle, kind, sound, limit)
    if found == limit and size - limit < max(2, sound.block):
        found = size
    if found < end:
        raise short(sound.stated or 0, found - sound.body, sound.byte_rate, "bytes")
    if sound.block > 1:
        _refuse_text(sound, read_at(handle, max(end, found - _TEXT), found - max(end, found - _TEXT)), end)
    return found


def _refuse_swallowed_tag(handle: BinaryIO, sound: _Sound, end: int, size: int) -> None:
    """`LayoutError` where the stated samples go on over a tag that lies behind the container."""
    if sound.stated and sound.end and sound.body < sound.end < end and tag_length(handle, sound.end, size):
        raise short(sound.stated, sound.end - sound.body, sound.byte_rate, "bytes")


def _refuse_text(sound: _Sound, data: bytes, end: int) -> None:
    if len(data) >= _TEXT and is_text(data):
        raise LayoutError(
            f"the header states {seconds(end - sound.body, sound.byte_rate)} of sound, and text follows: cut it off"
        )


def _next_header(handle: BinaryIO, at: int, end: int) -> int:
    """Where the header of another such file begins, ``end`` where none does: files that were joined."""
    for where in occurrences(handle, b"WAVEfmt ", at, end):
        if where - 8 >= at and _begins(handle, where - 8, end):
            return where - 8
    return end


def _check_comm(sound: _Sound, present: int) -> None:
    """AIFF states its length twice: the larger one counts, unless the container ends where the other says. And no
    sample is half there: what its container holds of it decides."""
    if sound.frames is not None and sound.block:
        stated = sound.frames * sound.block
        if stated > max(sound.stated or 0, present):
            raise short(stated, present, sound.byte_rate, "bytes")
        to_the_end = present - 1 <= (sound.stated or 0) <= present
        agree = _ends_at(sound, stated) and not to_the_end
        sound.stated = stated if agree else max(sound.stated or 0, stated)
    if sound.stated and sound.block and (rest := sound.stated % sound.block):
        less, more = sound.stated - rest, sound.stated - rest + sound.block
        sound.stated = less if _ends_at(sound, less) or more > present else more


def _ends_at(sound: _Sound, length: int) -> bool:
    """Whether the container ends behind ``length`` bytes of samples."""
    return sound.end is not None and 0 <= sound.end - sound.body - length <= 1


def _is_end(handle: BinaryIO, kind: _Kind, sound: _Sound, end: int, size: int) -> bool:
    """Whether the samples may end at ``end``: the file or the container does, chunks, tags or zeros follow."""
    filled = read_at(handle, end, 1) if sound.block == 1 and end % 2 else b""
    if filled.strip(b"\0") and _run(handle, kind, end, size, sound.end) == end:
        return False  # a byte that only fills up is zero: this is a sample
    if size - end < max(2, sound.block) or _after_chunks(handle, kind, end, size, sound.end) > end:
        return True
    container = sound.end if sound.end is not None else size
    if container <= end + -end % kind.align:
        filling = read_at(handle, end, container - end)
        if not filling.strip(b"\0") or len(filling) < sound.block:
            return True
    return skip_harmless(handle, end, size) >= min(size, max(end, container))


def _after_chunks(handle: BinaryIO, kind: _Kind, at: int, size: int, end: int | None) -> int:
    """Where a run of chunks that begins at ``at`` (or one byte later: a filled-up byte) ends; ``at`` without one."""
    for first in dict.fromkeys((at + -at % kind.align, at)):
        stop = _run(handle, kind, first, size, end)
        if stop > first:
            return min(stop, size)
    return at


def _run(handle: BinaryIO, kind: _Kind, at: int, size: int, end: int | None) -> int:
    """The end of the longest run of chunks from ``at`` on; names that nobody knows must lead on to a known end."""
    sure = at
    while at + kind.header <= size:
        name, body, length = _chunk(handle, kind, at)
        stop = body + length + -length % kind.align
        known = name in _KNOWN or (kind.id_bytes == 16 and name[4:] == _GUID_END)
        exact = kind.id_bytes == 4 and stop in (size, size + 1, end)
        named = known or exact or (kind.id_bytes == 4 and all(32 <= byte < 127 for byte in name))
        if name in _KINDS or not named:
            break
        if name == kind.data and length and body + length <= size:
            raise LayoutError(
                f"a second chunk of sound ({length} bytes) follows the first, which nothing here reads"
            )
        if known or exact:
            sure = min(stop, size)
        elif stop > size:
            break
        at = stop
    return sure


def _chunks_at_end(handle: BinaryIO, kind: _Kind, sound: _Sound, limit: int) -> int:
    """The offset before ``limit`` at which chunks begin that fill the rest of the file; ``limit`` without any."""
    start = max(sound.body, limit - _TAIL)
    tail = read_at(handle, start, limit - start)
    best = len(tail)
    while (at := _last_chunk(tail, best, kind)) is not None:
        best = at
    best += start
    one_byte = (
        sound.block == 1 and kind.size == "<I"
    )  # where 0 is the loudest sample, and the byte that fills up
    filled_up = one_byte and best > sound.body and best % 2 == 0 and tail[best - start - 1] == 0
    return best - 1 if filled_up else best


def _last_chunk(tail: bytes, end: int, kind: _Kind) -> int | None:
    """Where in ``tail`` the longest chunk begins that ends at ``end`` (shorter ones lie in it, as in a LIST)."""
    return next((at for at in _candidates(tail, end, kind) if _ends_there(tail, at, end, kind)), None)


def _candidates(tail: bytes, end: int, kind: _Kind) -> Iterable[int]:
    """Where chunks may begin: four printable characters, and a size of at most what is left. Samples of 16 bits look
    like a chunk that ends at a given place once in a million files."""
    count = end - kind.header
    if count < 0:
        return ()
    if kind.id_bytes == 16:
        marks = re.finditer(re.escape(_GUID_END), tail[: count + kind.id_bytes])
        return [mark.start() - 4 for mark in marks if mark.start() >= 4]
    data = np.frombuffer(tail, np.uint8, end)
    printable = (data >= 32) & (data < 127)
    named = np.logical_and.reduce([printable[n : n + count + 1] for n in range(4)])
    return map(int, np.flatnonzero(named & (_sizes(data[4:], count + 1, kind) <= count)))


def _sizes(data: np.ndarray, count: int, kind: _Kind) -> np.ndarray:
    """The number of four bytes that begins at each of the first ``count`` places."""
    parts = [data[n : n + count].astype(np.uint32) for n in range(4)]
    if kind.size[0] == ">":
        parts.reverse()
    return parts[0] | parts[1] << 8 | parts[2] << 16 | parts[3] << 24


def _ends_there(tail: bytes, at: int, end: int, kind: _Kind) -> bool:
    """Whether the chunk at ``at``, filled up or not, ends at ``end``; one that is empty needs a name that is known."""
    body = at + kind.header
    (length,) = struct.unpack(kind.size, tail[at + kind.id_bytes : body])
    length -= kind.header if kind.counts_itself else 0
    known = kind.id_bytes == 16 or tail[at : at + 4] in _KNOWN
    return (length > 0 or known) and body + length <= end <= body + length + -length % kind.align


def _section(handle: BinaryIO, kind: _Kind, sound: _Sound, end: int, stop: int) -> Section:
    """The file as it is where it says what is there, else with its sizes put right."""
    frames = (end - sound.body) // sound.block if sound.plain else None
    as_stated = sound.written == end - sound.body
    if as_stated and sound.frames is not None and frames is not None and sound.frames < frames:
        as_stated = False
    if as_stated and (
        end == stop or not kind.counts_itself
    ):  # libsndfile reads a Wave64 to the end of the file
        return Section(((sound.start, stop),))
    if sound.block:
        end -= (end - sound.body) % sound.block
    header = _corrected(handle, kind, sound, end, frames)
    pieces: tuple[Piece, ...] = (header, (sound.body, end))
    return Section(pieces, frames)


def _corrected(handle: BinaryIO, kind: _Kind, sound: _Sound, end: int, frames: int | None) -> bytes:
    header = bytearray(read_at(handle, sound.start, sound.body - sound.start))
    total, length = end - sound.start, end - sound.body
    if kind.data == b"SSND":
        gap = sound.body - sound.start  # up to the samples; the chunk's size stands where its name ends
        at = header.rfind(b"SSND")
        _put(header, ">I", 4, total - 8)
        _put(header, ">I", at + 4, length + gap - at - 8)
        if frames is not None and sound.comm:
            _put(header, ">I", sound.comm - sound.start + 2, frames)
        return bytes(header)
    counted = kind.header if kind.counts_itself else 0
    _put(header, kind.size, kind.id_bytes, total - (0 if counted else 8))
    _put(header, kind.size, len(header) - kind.size_bytes, length + counted)
    if sound.ds64:
        at = sound.ds64 - sound.start
        header[at : at + 24] = struct.pack("<QQQ", total - 8, length, frames or 0)
        _put(header, "<I", 4, 0xFFFFFFFF)
        _put(header, "<I", len(header) - 4, 0xFFFFFFFF)
    return bytes(header)


def _put(header: bytearray, form: str, at: int, value: int) -> None:
    """Write a size; one that does not fit stays "unknown", which libsndfile reads up to the end."""
    width = struct.calcsize(form)
    header[at : at + width] = struct.pack(form, min(value, (1 << 8 * width) - 1))


def _refuse_rest(handle: BinaryIO, sound: _Sound, end: int, at: int, size: int) -> None:
    """`LayoutError` for bytes behind the container that are neither chunk, tag nor zeros: sound, or something else?"""
    stated, more = end - sound.body, size - end
    if size - at < max(2, sound.block) or skip_harmless(handle, at, size) == size:
        return
    refuse_other_sound(handle, at, size, seconds(stated, sound.byte_rate))
    raise LayoutError(
        f"the header states {seconds(stated, sound.byte_rate)} of sound, and {size - at} bytes follow that are no chunk "
        f"or tag: the file has room for {seconds(stated + more, sound.byte_rate)}. If they are sound, write the header "
        "anew (sox --ignore-length); if not, cut them off"
    )
