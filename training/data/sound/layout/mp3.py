"""MPEG audio: frames in a row, counted one by one, because most headers only estimate how many there are.

An encoder that knows writes a first frame without sound that states their number (Xing, Info, VBRI). Files that were
joined have one in their middle, from which a new sound begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from training.data.sound.containers import mp3_frame_length
from training.data.sound.layout.parts import LayoutError, Piece, Section, read_at, short
from training.data.sound.layout.trailing import end_before_tags, refuse_other_sound, tag_length

_BLOCK = 1 << 20
_LONGEST = 4096
"""Bytes that a frame may have, more than enough."""
_NAMES = re.compile(rb"Xing|Info|VBRI")
_KEPT = 4096
_ALL_BITS = 0xFFFFFFFF


class _Header(NamedTuple):
    """What the second to fourth byte of a frame say. ``tag``: where a Xing frame has its name; ``kind``: must not change."""

    length: int
    samples: int
    rate: int
    tag: int
    side: int
    kind: tuple[int, int, int, bool]


@dataclass
class _Run:
    """Frames of one sound. ``tag``: offset of its first frame where that one states their number. ``cut``: what of its last frame is missing."""

    header: _Header
    first: int
    pieces: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    tag: tuple[int, int, int] | None = None
    cut: str = ""

    def add(self, at: int, stop: int) -> None:
        """Whole frames more."""
        if self.pieces and self.pieces[-1][1] == at:
            self.pieces[-1] = (self.pieces[-1][0], stop)
        else:
            self.pieces.append((at, stop))

    @property
    def bytes(self) -> int:
        """Number of bytes of all frames."""
        return sum(stop - start for start, stop in self.pieces)


_headers: dict[bytes, _Header] = {}


def _header(four: bytes) -> _Header | None:
    """The frame header that the four bytes are, None where they are none."""
    if (known := _headers.get(four)) is not None:
        return known
    length = mp3_frame_length(four)
    if not length:
        return None
    version, layer = four[1] >> 3 & 3, 4 - (four[1] >> 1 & 3)
    mono, crc = four[3] >> 6 == 3, 0 if four[1] & 1 else 2
    rate = (44_100, 48_000, 32_000)[four[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    header = _Header(length, samples, rate, 4 + side, 4 + crc, (version, layer, rate, mono))
    if len(_headers) < _KEPT:
        _headers[bytes(four)] = header
    return header


def mp3_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sounds of the file whose frames begin at ``start`` or later. All frame headers are read, nothing is decoded.

    Raises `LayoutError` for a file that ends within a frame or before the frames that it states, and where a file of
    another kind follows.
    """
    end = end_before_tags(handle, start, size)
    runs = _Scan(handle, start, end).runs()
    if not runs:
        return [Section(((start, size),), estimated=True)]
    return [section for run in runs for section in _sections(handle, run)]


class _Scan:
    """From frame to frame through a file, by blocks of it in memory."""

    def __init__(self, handle: BinaryIO, at: int, end: int) -> None:
        self.handle, self.at, self.end = handle, at, end
        self.base, self.block = at, b""
        self.marked, self.marks = -1, frozenset[int]()
        self.found: list[_Run] = []

    def runs(self) -> list[_Run]:
        while self.at < self.end:
            header = self._header_at(self.at)
            if header is None and self._ends_in_header():
                break
            if header is None or not self._fits(header):
                self._resume()
            elif self.at < self.end:
                self._take(header)
        return self.found

    def _bytes(self, at: int, count: int) -> bytes:
        if at < self.base or at + count > self.base + len(self.block):
            self.base, self.block = at, read_at(self.handle, at, min(_BLOCK, self.end - at))
        return self.block[at - self.base : at - self.base + count]

    def _header_at(self, at: int) -> _Header | None:
        four = self._bytes(at, 4) if at + 4 <= self.end else b""
        return _header(four)

    def _fits(self, header: _Header) -> bool:
        """Whether the frame at hand goes on with what was there; a first one, or a changed one, needs others behind."""
        if self.found and self.found[-1].header.kind == header.kind:
            self._note_cut(header)
            return True
        return self._proven(self.at, header)

    def _ends_in_header(self) -> bool:
        """Whether the file ends within the first bytes of one frame more."""
        left = self._bytes(self.at, self.end - self.at) if self.end - self.at < 4 else b""
        if not (self.found and left[:1] == b"\xff" and self.found[-1].pieces[-1][1] == self.at):
            return False
        self.found[-1].cut = f"{len(left)} bytes of its last frame are there"
        return True

    def _note_cut(self, header: _Header) -> None:
        run = self.found[-1]
        if self.at + header.length > self.end and run.pieces[-1][1] == self.at:
            run.cut = f"{self.end - self.at} of the {header.length} bytes of its last frame are there"
            self.at = self.end

    def _proven(self, at: int, header: _Header) -> bool:
        """Two frames of a kind in a row, or one that ends with the file."""
        stop = at + header.length
        if stop == self.end or (stop < self.end and tag_length(self.handle, stop, self.end)):
            return True
        following = self._header_at(stop)
        return following is not None and following.kind == header.kind

    def _take(self, header: _Header) -> None:
        """The frames from here on as far as they lie in a row."""
        at, kind = self.at, header.kind
        run = self.found[-1] if self.found and self.found[-1].header.kind == kind else None
        first = at
        while at < self.end:
            marks = self._marks(at)
            stop, frames, tagged = self._in_block(at, kind, marks)
            if run is None and frames:
                run = _Run(header, first)
                self.found.append(run)
            if run is not None:
                run.frames += frames
            if tagged is not None:
                if run is not None and stop > first:
                    run.add(first, stop)
                run = _Run(tagged, stop, tag=_stated(self._bytes(stop, tagged.length), tagged))
                self.found.append(run)
                first, stop = stop, stop + tagged.length
            elif stop == at:
                break
            at = stop
        assert run is not None
        if at > first:
            run.add(first, at)
        self.at = at

    def _marks(self, at: int) -> frozenset[int]:
        """Offsets in the block, which holds the bytes from ``at`` on, where a first frame may have its name."""
        self._bytes(at, min(_LONGEST, self.end - at))
        if self.base != self.marked:
            self.marked = self.base
            self.marks = frozenset(match.start() for match in _NAMES.finditer(self.block))
        return self.marks

    def _in_block(
        self, at: int, kind: tuple[int, int, int, bool], marks: frozenset[int]
    ) -> tuple[int, int, Any]:
        """Where the frames of this kind end in the block, how many they are, and the header of one with a name."""
        block, base, last = self.block, self.base, self.base + len(self.block)
        known, frames, full = _headers, 0, last - _LONGEST if last < self.end else last
        while at < full:
            offset = at - base
            four = block[offset : offset + 4]
            now = known.get(four)
            if now is None:
                now = _header(four)
                if now is None:
                    break
            if now.kind != kind or at + now.length > last:
                break
            if marks and (offset + now.tag in marks or offset + 36 in marks):
                return at, frames, now
            at += now.length
            frames += 1
        return at, frames, None

    def _resume(self) -> None:
        """Past what is no frame: a tag, or bytes up to the next frames."""
        length = tag_length(self.handle, self.at, self.end)
        if length:
            self.at += length
            return
        start, at = self.at, self.at + 1
        while at < self.end:
            block = self._bytes(at, min(_BLOCK, self.end - at))
            step = block.find(b"\xff")
            tag = block.find(b"ID3")
            if step < 0 and tag < 0:
                at += max(1, len(block) - 2)
                continue
            at += min(one for one in (step, tag) if one >= 0)
            header = self._header_at(at)
            if (header is not None and self._proven(at, header)) or tag_length(self.handle, at, self.end):
                break
            at += 1
        self.at = min(at, self.end)
        if self.found:
            refuse_other_sound(self.handle, start, self.at, "MP3")


def _stated(frame: bytes, header: _Header) -> tuple[int, int, int]:
    """Number of frames and bytes that the first frame states (0: it does not), and where the numbers stand in it."""
    if frame[36:40] == b"VBRI":
        return _number(frame, 50), _number(frame, 46), 36
    flags, at = _number(frame, header.tag + 4), header.tag + 8
    frames = _number(frame, at) if flags & 1 else 0
    at += 4 if flags & 1 else 0
    size = _number(frame, at) if flags & 2 else 0
    return frames, size, header.tag


def _number(data: bytes, at: int) -> int:
    value = int.from_bytes(data[at : at + 4], "big")
    return 0 if value in (_ALL_BITS, 0x7FFFFFFF) else value


def _sections(handle: BinaryIO, run: _Run) -> list[Section]:
    """One, or two where frames of another sound, which states no number, lie behind the stated ones."""
    _require_stated(run)
    if run.header.kind[1] != 3:
        return [Section(tuple[Piece, ...](run.pieces), estimated=True)]
    if run.tag is None:
        return [_counted(handle, run.header, run.first, run.pieces, run.frames)]
    stated, size, _ = run.tag
    if not stated or stated in (run.frames, run.frames + 1):
        if stated and size:
            return [Section(tuple[Piece, ...](run.pieces))]
        return [_restated(handle, run)]
    split = _split_at(handle, run, stated)
    if split is None or (
        size and abs(split - run.first - size) > run.header.length and _goes_on(handle, split)
    ):
        return [_restated(handle, run)]
    before = [(a, min(b, split)) for a, b in run.pieces if a < split]
    after = [(max(a, split), b) for a, b in run.pieces if b > split]
    return [
        Section(tuple[Piece, ...](before)),
        _counted(handle, run.header, split, after, run.frames - stated),
    ]


def _require_stated(run: _Run) -> None:
    """`LayoutError` where fewer frames or bytes are there than stated, or the last frame is cut off."""
    stated, size, _ = run.tag or (0, 0, 0)
    samples, rate = run.header.samples, run.header.rate
    if stated > run.frames + 1:
        raise short(stated * samples, run.frames * samples, rate, "samples")
    if size > run.bytes:
        estimated = run.frames * samples * size / run.bytes
        raise short(estimated, run.frames * samples, rate, "samples, by its bytes")
    if run.cut:
        raise LayoutError(f"truncated: {run.cut}, after {run.frames * samples / rate:.3f} s")


def _split_at(handle: BinaryIO, run: _Run, stated: int) -> int | None:
    """The offset behind the first ``stated`` frames; None where the next one goes on with their bits."""
    left = stated + 1
    for start, stop in run.pieces:
        at = start
        while at < stop:
            if left == 0:
                return None if _goes_on(handle, at) else at
            header = _header(read_at(handle, at, 4))
            assert header is not None
            at += header.length
            left -= 1
    return None


def _goes_on(handle: BinaryIO, at: int) -> bool:
    """Whether a frame takes bits of those before it (its main_data_begin): the first one of a sound never does."""
    header = _header(read_at(handle, at, 4))
    assert header is not None
    first, second = read_at(handle, at + header.side, 2)
    return bool(first or second & 0x80) if header.kind[0] == 3 else bool(first)


def _restated(handle: BinaryIO, run: _Run) -> Section:
    """The sound with its first frame's numbers put right."""
    assert run.tag is not None
    length = run.header.length
    frame = bytearray(read_at(handle, run.first, length))
    if frame[36:40] == b"VBRI":
        frame[46:54] = run.bytes.to_bytes(4, "big") + run.frames.to_bytes(4, "big")
    else:
        at = run.tag[2] + 4
        flags = int.from_bytes(frame[at : at + 4], "big")
        if not flags & 1:
            return _counted(
                handle, run.header, run.first + length, _without(run.pieces, run.first + length), run.frames
            )
        frame[at + 4 : at + 8] = run.frames.to_bytes(4, "big")
        if flags & 2:
            frame[at + 8 : at + 12] = run.bytes.to_bytes(4, "big")
    return Section((bytes(frame), *_without(run.pieces, run.first + length)))


def _without(pieces: list[tuple[int, int]], before: int) -> list[tuple[int, int]]:
    return [(max(start, before), stop) for start, stop in pieces if stop > before]


def _counted(
    handle: BinaryIO, header: _Header, first: int, pieces: list[tuple[int, int]], frames: int
) -> Section:
    """A sound that states no number, with a first frame of ours in front that does."""
    found = bytearray(read_at(handle, first, 4))
    found[1] |= 1  # without a checksum
    length = 0
    for index in range(1, 15):
        found[2] = index << 4 | found[2] & 0x0C
        length = mp3_frame_length(bytes(found)) or 0
        if length >= header.tag + 16:
            break
    tag = b"Info" + (3).to_bytes(4, "big") + frames.to_bytes(4, "big")
    size = length + sum(stop - start for start, stop in pieces)
    frame = bytes(found) + bytes(header.tag - 4) + tag + size.to_bytes(4, "big")
    return Section((frame.ljust(length, b"\0"), *pieces))
