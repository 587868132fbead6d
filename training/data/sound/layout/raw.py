"""The end of samples that lie behind one header without chunks: AU and SPHERE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from training.data.sound.layout.parts import LayoutError, read_at, seconds, short
from training.data.sound.layout.trailing import end_before_tags, is_text, refuse_other_sound, skip_harmless

_TEXT = 24


@dataclass(frozen=True, slots=True)
class RawEnd:
    """``end``: offset behind the last sample; ``following``: where another file of the kind begins, None without."""

    end: int
    following: int | None = None


def end_of_raw(
    handle: BinaryIO, body: int, stated: int, size: int, block: int, rate: int, mark: bytes
) -> RawEnd:
    """Where samples that begin at ``body`` end.

    stated: their bytes by the header; 0: it leaves them open. block: bytes of one sample of each channel, 0 where they
        are compressed. rate: samples per second. mark: the first bytes of another such file.
    Raises `LayoutError` where less sound is there than stated, or more that cannot be told from other bytes.
    """
    if not stated:
        return RawEnd(_open_end(handle, body, size, block))
    if stated > size - body:
        raise short(stated, size - body, block * rate, "bytes")
    end = body + stated
    following = skip_harmless(handle, end, size)
    if read_at(handle, following, len(mark)) == mark:
        return RawEnd(end, following)
    if following < size and size - end >= max(2, block):
        length = seconds(stated, block * rate)
        refuse_other_sound(handle, following, size, length)
        raise LayoutError(
            f"the header states {length} of sound ({stated} bytes), and {size - end} bytes follow: the file has room for "
            f"{seconds(size - body, block * rate)}. If they are sound, write the header anew; if not, cut them off"
        )
    return RawEnd(end)


def _open_end(handle: BinaryIO, body: int, size: int, block: int) -> int:
    end = end_before_tags(handle, body, size, id3=True)
    first = max(body, end - _TEXT)
    if block > 1 and is_text(read_at(handle, first, end - first)):
        raise LayoutError(
            "the header leaves the length of its sound open, and text follows it: cut the text off"
        )
    return end - (end - body) % block if block else end
