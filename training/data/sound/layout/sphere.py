"""NIST SPHERE (LDC corpora): a header of text that states how many samples follow, then the samples.

libsndfile reads to the end of the file and never looks at the stated number.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from training.data.sound.layout.parts import Section, read_at
from training.data.sound.layout.raw import end_of_raw

_NUMBER = re.compile(rb"^(channel_count|sample_n_bytes|sample_rate|sample_count) -i (\d+)\s*$", re.MULTILINE)
_COMPANDED = re.compile(rb"^sample_coding -s\d+ (ulaw|mu-law|alaw)", re.MULTILINE)
"""A sample has one byte then, which not every writer states."""
_LARGEST = 1 << 62
_HEADER = 1 << 16
"""Bytes of a header that are read, far more than any has."""


def sphere_layout(handle: BinaryIO, start: int, size: int) -> list[Section]:
    """The sections of the file that begins at ``start``: one, or several where such files were joined.

    Raises `training.data.sound.layout.parts.LayoutError` where less sound is there than stated, or more that cannot be told
    from other bytes.
    """
    length = read_at(handle, start + 8, 8).strip()
    if not length.isdigit() or not 16 < int(length) <= _HEADER:
        return [Section(((start, size),))]
    body = start + int(length)
    header = read_at(handle, start, int(length))
    stated = {name: int(value) for name, value in _NUMBER.findall(header)}
    companded = _COMPANDED.search(header) is not None
    block = stated.get(b"channel_count", 1) * stated.get(b"sample_n_bytes", 1 if companded else 0)
    count = stated.get(b"sample_count", 0)
    if not block or not 0 < count < _LARGEST // block:
        count = 0
    raw = end_of_raw(handle, body, count * block, size, block, stated.get(b"sample_rate", 0), b"NIST_1A")
    section = Section(((start, raw.end),), (raw.end - body) // block if block else None)
    return [section] if raw.following is None else [section, *sphere_layout(handle, raw.following, size)]
