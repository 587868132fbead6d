"""Bytes out of shards: this process keeps the last few archives open, and reads each stretch where it lies."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

_LIMIT = 32
_lock = threading.Lock()
_open: OrderedDict[str, _File] = OrderedDict()


class _File:
    """A descriptor that closes with its last user: a thread may read while another makes room."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if "descriptor" in self.__dict__:
            os.close(self.descriptor)


def read_stretch(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset`` on, fewer where it ends before. Raises ``OSError``.

    Forked workers share the descriptors: reading at a position moves none.
    """
    file = _file(path)
    if hasattr(os, "pread"):
        return os.pread(file.descriptor, size, offset)
    with _lock:
        os.lseek(file.descriptor, offset, os.SEEK_SET)
        return os.read(file.descriptor, size)


def forget() -> None:
    """Keep nothing open: what lies at a path now may be another file."""
    with _lock:
        _open.clear()


def _file(path: str) -> _File:
    with _lock:
        file = _open.pop(path, None) or _File(path)
        _open[path] = file
        if len(_open) > _LIMIT:
            _open.popitem(last=False)
        return file
