"""Which windows are computed together: those that wait longest first, and with them others of like length."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from training.serving.options import Options

SIMILAR, VERY_SIMILAR = 0.5, 0.9
"""Windows are computed together where the shorter one is at least this share of the longer one: the rest is padding. The
second is for models that read padding (a Whisper in a trimmed context has no mask), so that a text hardly depends on what it
is computed with."""


class BatchKey(NamedTuple):
    """Windows with the same key can be computed together."""

    model: str
    options: Options


@dataclass(eq=False)
class QueuedWindow:
    """A window that waits to be computed.

    samples: float32 ``[time]`` at the model's rate. since: when its request began to wait (``time.monotonic``).
    similarity: `SIMILAR` or `VERY_SIMILAR`. attempts: how often it was with a process that died.
    live: somebody is speaking meanwhile. result: its row.
    """

    key: BatchKey
    samples: np.ndarray
    language: str | None
    seconds: float
    since: float
    result: asyncio.Future[dict[str, Any]] = field(repr=False)
    live: bool = False
    similarity: float = SIMILAR
    attempts: int = 0

    @property
    def order(self) -> tuple[bool, float]:
        """The smallest goes first."""
        return not self.live, self.since


class WindowQueue:
    """The windows that wait, for every device alike."""

    def __init__(self) -> None:
        self.pieces: set[QueuedWindow] = set()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def seconds(self) -> float:
        """Of sound that waits."""
        return sum(piece.seconds for piece in self.pieces)

    def add(self, piece: QueuedWindow) -> None:
        self.pieces.add(piece)
        self._news.set()

    def remove(self, piece: QueuedWindow) -> None:
        """Nobody wants it any more."""
        self.pieces.discard(piece)

    async def batch(self, seconds: float) -> list[QueuedWindow]:
        """The next windows to compute, at least one; they wait no longer."""
        while not self.pieces:
            self._news.clear()
            await self._news.wait()
        chosen = choose(self.pieces, seconds)
        self.pieces.difference_update(chosen)
        return chosen


def choose(pieces: set[QueuedWindow], seconds: float) -> list[QueuedWindow]:
    """The piece that goes first, and those of like length that fit beside it.

    Args:
        pieces: at least one.
        seconds: of sound in a batch, padding included; a longer piece is alone.

    Returns:
        The pieces. One that was with a process that died is alone: whether it was the cause shows then.
    """
    first = min(pieces, key=lambda one: one.order)
    if first.attempts:
        return [first]
    others = [
        one
        for one in pieces
        if one is not first
        and one.key == first.key
        and not one.attempts
        and min(one.seconds, first.seconds) >= first.similarity * max(one.seconds, first.seconds)
    ]
    chosen, longest = [first], first.seconds
    for one in sorted(others, key=lambda other: other.order):
        if (len(chosen) + 1) * max(longest, one.seconds) <= seconds:
            chosen.append(one)
            longest = max(longest, one.seconds)
    return chosen
