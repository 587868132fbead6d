"""The weights of a CTranslate2 folder as arrays of numpy: CTranslate2 itself gives no attention and draws what cannot be repeated."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.base.errors import UserError

VERSION = 6
"""Of ``model.bin``, as CTranslate2 4 writes it (``ModelSpec._serialize`` of its package)."""
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""By the number in the file."""
KEPT_BYTES = 512 * 1024**2
"""Weights that have to be copied, because they are not float32 or do not stand at a multiple of four bytes, are kept as long as
they take no more than this; those of a larger model are copied each time."""


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]
    kind: type
    offset: int


class Weights:
    """The variables of ``model.bin`` by name, float32; 8-bit ones are multiplied out. Nothing is read before it is asked for.

    Raises `UserError` for a file that is none of CTranslate2's, or of a version that this library does not know.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._entries, self._aliases = _index(path)
        except (OSError, struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); export the model again") from error
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self._kept: dict[str, np.ndarray] = {}
        self._room = KEPT_BYTES

    def __contains__(self, name: str) -> bool:
        return self._aliases.get(name, name) in self._entries

    def __getitem__(self, name: str) -> np.ndarray:
        name = self._aliases.get(name, name)
        if name in self._kept:
            return self._kept[name]
        stored = self._stored(name)
        if stored.dtype == np.float32 and stored.flags.aligned:
            return stored
        values = stored.astype(np.float32)
        if f"{name}_scale" in self._entries:
            scale = self._stored(f"{name}_scale").astype(np.float32)
            values /= scale.reshape(-1, *[1] * (values.ndim - 1))
        if values.nbytes <= self._room:
            self._room -= values.nbytes
            self._kept[name] = values
        return values

    def number(self, name: str) -> int:
        """A variable that is one whole number."""
        return int(self._stored(name))

    def _stored(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        size = int(np.prod(entry.shape, dtype=np.int64)) * np.dtype(entry.kind).itemsize
        return np.asarray(
            self._bytes[entry.offset : entry.offset + size].view(entry.kind).reshape(entry.shape)
        )


def _index(path: Path) -> tuple[dict[str, _Entry], dict[str, str]]:
    """Where each variable stands, and the other names of variables."""
    with path.open("rb") as file:

        def number(form: str) -> int:
            found: int = struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0]
            return found

        def text() -> str:
            return file.read(number("H"))[:-1].decode("utf8")

        if (version := number("I")) != VERSION:
            raise ValueError(f"version {version} of the format, known is {VERSION}")
        text(), number("I")  # the specification and its revision
        entries = dict(_entry(file.tell, number, text, file.seek) for _ in range(number("I")))
        aliases = {}
        for _ in range(number("I")):
            alias = text()
            aliases[alias] = text()
    return entries, aliases


def _entry(
    tell: Callable[[], int],
    number: Callable[[str], int],
    text: Callable[[], str],
    seek: Callable[[int], int],
) -> tuple[str, _Entry]:
    name = text()
    shape = tuple(number("I") for _ in range(number("B")))
    kind, size = TYPES[number("B")], number("I")
    entry = _Entry(shape, kind, tell())
    seek(entry.offset + size)
    return name, entry
