"""From several channels to one: their mean, or one of them where the mean would lose what they hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

FAR_BELOW_DB = 20.0
"""By so many dB the mean's energy lies below the louder channel's where channels cancel each other (antiphase)."""
CANCELLED = f"the channels cancel each other: their mean lies more than {FAR_BELOW_DB:g} dB below"
"""The beginning of a message; the number of the channel follows that is taken."""
_SHARE = 10 ** (-FAR_BELOW_DB / 10)


class Energies:
    """Sums over the blocks of one utterance; `choice` says what stands for all of it."""

    def __init__(self) -> None:
        self.channels = np.zeros(0)
        self.mean = 0.0

    def add(self, block: np.ndarray) -> None:
        """``block``: float32 ``[time, channels]``, as many channels as those before."""
        if block.shape[1] == 1:
            return
        energy = np.square(block, dtype=np.float64).sum(axis=0)
        self.channels = energy if not len(self.channels) else self.channels + energy
        with np.errstate(over="ignore"):
            self.mean += float(np.square(block.mean(axis=1), dtype=np.float64).sum())

    @property
    def choice(self) -> int | None:
        """The louder channel's number, from 0, where the mean lies far below it; None: the mean."""
        if not len(self.channels) or self.mean >= _SHARE * self.channels.max():
            return None
        return int(self.channels.argmax())


def choose(blocks: Iterable[np.ndarray]) -> int | None:
    """The channel that is taken for an utterance of these blocks ``[time, channels]``; None: the mean of all."""
    energies = Energies()
    for block in blocks:
        energies.add(block)
    return energies.choice


def mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    """float32 ``[time]`` of ``[time, channels]``: the channel of this number, None: the mean."""
    if block.shape[1] == 1:
        return block[:, 0]
    return block.mean(axis=1) if channel is None else block[:, channel]


def agreed(blocks: Iterable[tuple[np.ndarray, int]]) -> tuple[bool, int | None]:
    """Whether one choice holds for every stretch of a recording, and which (see `choose`).

    blocks: ``(float32 [time, channels], sample rate)``. What is chosen in each second alone is chosen in all stretches of
    them, because both sides of the rule are sums.
    """
    chosen: set[int | None] = set()
    for block, rate in blocks:
        for start in range(0, len(block), rate):
            piece = block[start : start + rate]
            if piece.any():
                chosen.add(choose([piece]))
    return len(chosen) < 2, next(iter(chosen)) if len(chosen) == 1 else None
