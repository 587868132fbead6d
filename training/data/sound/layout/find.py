"""The sections of a sound file, by its container."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import BinaryIO

from training.data.sound.layout.au import au_layout
from training.data.sound.layout.chunks import chunk_layout
from training.data.sound.layout.flac import flac_layout
from training.data.sound.layout.mp3 import mp3_layout
from training.data.sound.layout.ogg import ogg_layout
from training.data.sound.layout.parts import Section, read_at, whole
from training.data.sound.layout.sphere import sphere_layout
from training.data.sound.layout.trailing import id3_length
from training.data.sound.layout.voc import voc_layout

_BY_CONTAINER: dict[str, Callable[[BinaryIO, int, int], list[Section]]] = {
    "wav": chunk_layout,
    "rf64": chunk_layout,
    "w64": chunk_layout,
    "aiff": chunk_layout,
    "au": au_layout,
    "flac": flac_layout,
    "ogg": ogg_layout,
    "mp3": mp3_layout,
    "sphere": sphere_layout,
    "voc": voc_layout,
}
_KEPT = 1 << 16
"""Files whose sections are remembered, in each process: those of which the training reads stretch after stretch."""
_known: OrderedDict[Hashable, tuple[Section, ...]] = OrderedDict()


def sections(handle: BinaryIO, container: str, key: Hashable = None) -> tuple[Section, ...]:
    """Where the sound lies in an open file of ``container`` (`training.data.sound.containers.identify`).

    handle: seekable; its position is not kept. key: tells the file's content from others', so that a file of which many
        stretches are read is looked through once; None: not known.
    Returns the sections in the order of the file; `training.data.sound.layout.parts.opened` makes files of them.
    Raises `training.data.sound.layout.parts.LayoutError` where less sound is there than stated, or more that cannot be read.
    """
    if key is None:
        return _find(handle, container)
    found = _known.get((container, key))
    if found is None:
        found = _known[container, key] = _find(handle, container)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return found


def _find(handle: BinaryIO, container: str) -> tuple[Section, ...]:
    size, start = handle.seek(0, io.SEEK_END), 0
    while length := id3_length(read_at(handle, start, 10)):
        start += length
    find = _BY_CONTAINER.get(container)
    return (whole(size),) if find is None or start >= size else tuple(find(handle, start, size))
