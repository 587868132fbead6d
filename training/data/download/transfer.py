"""One file over HTTP into a part on disk, gone on with wherever it was cut off."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from training.base.errors import MENDABLE

ATTEMPTS = 4
"""Requests in a row that bring nothing new before a server is given up."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as cut."""
PAUSE = 1.0
"""Seconds before the next request, doubled for each in a row that brought nothing."""
_BLOCK = 1 << 18
_PASSING = (408, 425, 429)

Begin = Callable[[int, int | None], None]
Advance = Callable[[int], None]


class Unavailable(Exception):
    """Why a server does not give the file."""


def transfer(url: str, part: Path, *, begin: Begin, advance: Advance, pause: float = PAUSE) -> None:
    """Bring ``part`` to the length that the server states; what it holds already is not asked for again.

    ``begin(have, total)`` is told, before bytes are written, how many are there and how many it will be (None: the
    server does not say) and may refuse; ``advance(count)`` follows every block. A part that is no shorter than the
    file counts as whole: whether it is the right one, a checksum tells. Raises `Unavailable` for a server that has
    no such file, or brings nothing new in `ATTEMPTS` requests.
    """
    idle = 0
    while True:
        before = size_of(part)
        try:
            return _request(url, part, begin, advance)
        except HTTPError as error:
            if error.code < 500 and error.code not in _PASSING:
                raise Unavailable(f"status {error.code} {error.reason}") from error
            reason = f"status {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if _is_of_the_disk(error):
                raise
            reason = _reason(error)
        idle = 0 if size_of(part) > before else idle + 1
        if idle == ATTEMPTS:
            raise Unavailable(reason)
        time.sleep(pause * 2**idle)


def size_of(part: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return part.stat().st_size if part.is_file() else 0


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the system refused to write; the numbers in TLS errors are OpenSSL's own."""
    return isinstance(error, OSError) and not isinstance(error, SSLError) and error.errno in MENDABLE


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner) or type(inner).__name__


def _request(url: str, part: Path, begin: Begin, advance: Advance) -> None:
    """One answer of the server, to its end. Raises ``ConnectionError`` where the end is missing."""
    have = size_of(part)
    asked = {"Range": f"bytes={have}-"} if have else {}
    try:
        answer = urlopen(Request(url, headers={"User-Agent": "polyvox", **asked}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have:
            return  # nothing lies behind what is here
        raise
    with answer:
        start, total = _extent(answer, have)
        begin(have, total)
        with part.open("ab") as handle:
            _skip(answer, have - start)
            while block := answer.read1(_BLOCK):  # what a cut interrupts is not lost
                handle.write(block)
                advance(len(block))
    if total is not None and size_of(part) < total:
        raise ConnectionError(f"the connection ended after {size_of(part):,} of {total:,} bytes")


def _extent(answer: HTTPResponse, have: int) -> tuple[int, int | None]:
    """The first byte of the answer, and the length of the whole file: a server may not know ranges."""
    if answer.status != 206:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    if stated is None or int(stated[1]) != have:
        raise Unavailable(f"asked for what follows byte {have:,}, it sends something else")
    return have, int(stated[2]) if stated[2] != "*" else None


def _skip(answer: HTTPResponse, count: int) -> None:
    """Read past what is here already."""
    while count and (block := answer.read(min(count, _BLOCK))):
        count -= len(block)
