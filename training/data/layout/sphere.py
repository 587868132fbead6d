"""NIST SPHERE: a header of text lines, then samples up to the end of the file."""

from __future__ import annotations

from typing import BinaryIO

from training.data.layout.parts import LayoutError, Section, read_at, seconds, short
from training.data.layout.trailing import skip_harmless


def sphere_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The section of the file that begins at ``start``. Without a number of samples its header says nothing of the end.

    Raises `LayoutError` where fewer or more samples are there than stated.
    """
    fields = _fields(handle, start, size)
    count, rate, body = fields.get("sample_count", 0), fields.get("sample_rate", 0), fields.get("header", 0)
    block = fields.get("channel_count", 1) * fields.get("sample_n_bytes", 0)
    if not (count and block and body):
        return [Section(((start, size),))]
    present = size - start - body
    if count * block > present:
        raise short(count, present // block, rate, "samples")
    end = start + body + count * block
    if size - end >= block and skip_harmless(handle, end, size) < size:
        raise LayoutError(
            f"the header states {seconds(count, rate)} of sound ({count} samples), the file has room for "
            f"{seconds(present // block, rate)}: write the header anew, or cut the rest off"
        )
    return [Section(((start, end),), count)]


def _fields(handle: BinaryIO, start: int, size: int) -> dict[str, int]:
    """The whole numbers of the header, and its length as ``header``."""
    head = read_at(handle, start, min(16, size - start)).split(b"\n")
    length = int(head[1]) if len(head) > 1 and head[1].strip().isdigit() else 0
    found = {"header": length}
    for line in read_at(handle, start, min(length, 1 << 16)).decode("latin-1").splitlines():
        name, kind, value = (*line.split(maxsplit=2), "", "")[:3]
        if kind == "-i" and value.strip().lstrip("-").isdigit():
            found[name] = int(value)
    return found
