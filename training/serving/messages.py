"""Messages between the server and its processes: a JSON object, bytes, and open files, over a Unix socket.

Not pickles: a process that decodes what strangers send must not be able to make the server run anything.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_LENGTHS = struct.Struct(">IQ")
_MOST_FILES = 4
LONGEST_HEAD = 64 * 2**20
_SLACK = 1.1, 1.0
"""A window may be a little longer than it was planned: a share of it, and seconds."""


def payload_of(seconds: float, rate: int) -> int:
    """The most bytes of a payload that holds so many seconds of sound, float32 at ``rate``."""
    return round(4 * rate * (_SLACK[0] * seconds + _SLACK[1]))


class Message(NamedTuple):
    """head: a JSON object. payload: bytes that belong to it. files: descriptors that came with it."""

    head: dict[str, Any]
    payload: bytearray
    files: list[int]


def send(
    end: socket.socket, head: Mapping[str, Any], payload: Sequence[Any] = (), files: Sequence[int] = ()
) -> None:
    """Send a message. ``payload``: pieces of bytes (arrays too) that are sent one after another."""
    text = json.dumps(head).encode("ascii")
    pieces = [memoryview(piece).cast("B") for piece in payload if len(piece)]
    first = _LENGTHS.pack(len(text), sum(len(piece) for piece in pieces)) + text
    sent = socket.send_fds(end, [first], list(files)) if files else 0
    end.sendall(memoryview(first)[sent:])
    for piece in pieces:
        end.sendall(piece)


def receive(end: socket.socket, longest: int = 0) -> Message:
    """The next message.

    Args:
        end: of the socket.
        longest: bytes of payload that are taken.

    Raises:
        EOFError: the other side has gone, or sends no message, or one that is too long.
    """
    files: list[int] = []
    lengths = bytearray()
    while len(lengths) < _LENGTHS.size:
        part, got, _, _ = socket.recv_fds(end, _LENGTHS.size - len(lengths), _MOST_FILES)
        files += got
        if not part:
            raise EOFError("the other side has gone")
        lengths += part
    text, payload = _LENGTHS.unpack(lengths)
    if text > LONGEST_HEAD or payload > longest:
        raise EOFError(f"no message that is taken here ({text} and {payload} bytes)")
    head = json.loads(_exactly(end, text))
    return Message(head, _exactly(end, payload), files)


def _exactly(end: socket.socket, length: int) -> bytearray:
    found = bytearray(length)
    view, at = memoryview(found), 0
    while at < length:
        got = end.recv_into(view[at:])
        if not got:
            raise EOFError("the other side has gone")
        at += got
    return found
