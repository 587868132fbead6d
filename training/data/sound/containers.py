"""Which container the first bytes of a file are. Names and suffixes are not looked at: they prove nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

HEAD_BYTES = 16_384
"""What `identify` wants to see: several frames of the longest kind of ADTS and MP3, several packets of MPEG-TS."""

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"fLaC", "flac"),
    (b".snd", "au"),
    (b"dns.", "au"),
    (b"NIST_1A", "sphere"),
    (b"Creative Voice File\x1a", "voc"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
    (b"FLV\x01", "flv"),
    (b"caff\x00\x01", "caf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"wvpk", "wavpack"),
)
"""First bytes that say by themselves which container follows."""
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_FORMS = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFX", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "rf64",
    (b"BW64", b"WAVE"): "bw64",
    (b"RIFF", b"AVI "): "avi",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}
"""Files of chunks: the first four bytes, and the four behind the size."""
_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"})
_OGG_SOUND = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Bytes per packet of MPEG-TS, and where its sync byte lies: plain, with a time code (M2TS), with check bytes."""
_TS_MARKS = 8
_FRAMES_IN_A_ROW = 3
_MP3_RATES = (44_100, 48_000, 32_000)
_MP3_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits per second by (MPEG 1, layer) and the header's index; 0 is a frame of free length."""


def identify(head: bytes) -> str | None:
    """The container that a file's first bytes (`HEAD_BYTES` or all of it) are, None where they are none known here.

    Returns: ``wav``, ``rf64``, ``w64``, ``flac``, ``ogg`` (Vorbis, Opus or FLAC), ``ogg_other`` (Speex, video),
    ``mp3`` (MPEG layers 1 to 3), ``aiff``, ``au``, ``sphere``, ``voc``, ``mov`` (MP4, M4A, 3GP), ``matroska`` (WebM),
    ``mpegts``, ``mpeg``, ``adts``, ``amr``, ``asf`` (WMA), ``avi``, ``flv``, ``caf``, ``ac3``, ``eac3``, ``bw64`` or
    ``wavpack``. ID3 tags before the sound are passed over as far as they lie in ``head`` (`identify_file`
    passes over longer ones).
    """
    head = head[_tags_length(head) :]
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    if (name := _FORMS.get((head[:4], head[8:12]), "")) != "":
        return name
    if head.startswith(_W64) and head[24:28] == b"wave":
        return "w64"
    if head[:4] == b"OggS":
        return _ogg(head)
    if head[4:8] in _BOXES and _box_length_is_possible(head):
        return "mov"
    if head[:2] == b"\x0b\x77" and len(head) > 5:
        return "ac3" if head[5] >> 3 <= 10 else "eac3"
    if _is_mpegts(head):
        return "mpegts"
    return _framed(head)


def identify_file(handle: BinaryIO) -> str | None:
    """`identify` for an open file, past ID3 tags of any length (pictures lie in them); ``handle`` ends at its start."""
    at = 0
    handle.seek(0)
    while length := _tag_length(handle.read(10)):
        at += length
        handle.seek(at)
    handle.seek(at)
    head = handle.read(HEAD_BYTES)
    handle.seek(0)
    return identify(head)


def unknown(head: bytes) -> str:
    """Why bytes that `identify` does not know are refused, for a message."""
    sample = head[:512]
    if sample and all(byte >= 32 or byte in b"\t\r\n\f" for byte in sample) and _is_text(sample):
        return "it is a text (a playlist, a script, a table?), not sound: name the sound files themselves"
    return "its first bytes are those of no sound format known here (whatever its name says)"


def mp3_frame_length(header: bytes) -> int | None:
    """Bytes of the MPEG audio frame (layers 1 to 3) that the four bytes begin, None where they begin none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_index, bit_index, padding = header[2] >> 2 & 3, header[2] >> 4, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or bit_index in (0, 15):
        return None
    bits = 1000 * _MP3_KBITS[version == 3, layer][bit_index]
    rate = _MP3_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def adts_frame_length(header: bytes) -> int | None:
    """Bytes of the ADTS frame (AAC) that the seven bytes begin, None where they begin none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else None


def _tag_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that ``head`` begins with, 0 without one: its length is four times seven bits."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte > 127 for byte in head[6:10]):
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + footer + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


def _tags_length(head: bytes) -> int:
    at = 0
    while length := _tag_length(head[at : at + 10]):
        at += length
    return at


def _ogg(head: bytes) -> str:
    """libsndfile reads three codecs; a page's packets begin behind the table of its segments."""
    if len(head) < 28:
        return "ogg"
    packet = head[27 + head[26] :]
    return "ogg" if packet.startswith(_OGG_SOUND) or not packet.strip(b"\x00") else "ogg_other"


def _box_length_is_possible(head: bytes) -> bool:
    (length,) = struct.unpack(">I", head[:4])
    return length in (0, 1) or length >= 8


def _is_mpegts(head: bytes) -> bool:
    for size, at in _TS_PACKETS:
        marks = head[at::size][:_TS_MARKS]
        if len(marks) >= _FRAMES_IN_A_ROW and not marks.strip(b"\x47"):
            return True
    return False


def _framed(head: bytes) -> str | None:
    """MP3 and ADTS have frames only, and may begin with bytes that are none: several frames in a row are the proof."""
    kinds: tuple[tuple[str, Callable[[bytes], int | None]], ...] = (
        ("mp3", mp3_frame_length),
        ("adts", adts_frame_length),
    )
    at = head.find(b"\xff")
    while at >= 0:
        for name, length in kinds:
            if _frames_follow(head, at, length):
                return name
        at = head.find(b"\xff", at + 1)
    return None


def _frames_follow(head: bytes, start: int, length: Callable[[bytes], int | None]) -> bool:
    """Whether frames lie in a row from ``start`` on; a file that begins with a frame may end before the third."""
    at = start
    for count in range(_FRAMES_IN_A_ROW):
        if at >= len(head) - 7:
            return start == 0 and count > 0
        size = length(head[at : at + 7])
        if not size:
            return False
        at += size
    return True


def _is_text(sample: bytes) -> bool:
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(sample) - 4
    return True
