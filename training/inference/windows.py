"""A long recording in windows that a model can hear: cut in pauses, overlapping where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.inference.speech_regions import Region

CUT_FROM = 0.55
"""A region without pauses is cut where it is quietest in the last part of the window, from this share on."""


@dataclass(frozen=True)
class Window:
    """What the model hears at once, in seconds of the recording. ``seam``: the cut between it and the window before,
    which it overlaps; None where a pause parts them."""

    start: float
    end: float
    seam: float | None = None

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Cutting:
    """longest: seconds of a window. overlap: seconds that windows share at a seam. pack: regions are joined, pauses
    and all, up to this length; 0 leaves each region a window of its own."""

    longest: float = 30.0
    overlap: float = 3.0
    pack: float = 0.0

    def __post_init__(self) -> None:
        assert 0 < 3 * self.overlap <= self.longest and self.pack <= self.longest


def plan_windows(regions: Sequence[Region], level: np.ndarray, hop: float, cutting: Cutting) -> list[Window]:
    """Windows that cover all regions. ``level [frames]`` is low where a cut does least harm."""
    windows: list[Window] = []
    for region in _packed(regions, cutting.pack):
        windows += _cut(region, level, hop, cutting)
    return windows


def _packed(regions: Sequence[Region], pack: float) -> list[Region]:
    packed: list[Region] = []
    for region in regions:
        if packed and region.end - packed[-1].start <= pack:
            packed[-1] = Region(packed[-1].start, region.end)
        else:
            packed.append(region)
    return packed


def _cut(region: Region, level: np.ndarray, hop: float, cutting: Cutting) -> list[Window]:
    windows: list[Window] = []
    start, seam, half = region.start, None, cutting.overlap / 2
    while region.end - start > cutting.longest:
        latest = start + cutting.longest - half
        cut = _quietest(level, hop, start + CUT_FROM * cutting.longest, latest)
        windows.append(Window(start, cut + half, seam))
        start, seam = cut - half, cut
    windows.append(Window(start, region.end, seam))
    return windows


def _quietest(level: np.ndarray, hop: float, earliest: float, latest: float) -> float:
    """The middle of the quietest tenth of a second between two times."""
    width = max(1, round(0.1 / hop))
    first, last = int(earliest / hop), max(int(earliest / hop) + width, int(latest / hop))
    piece = level[first:last].astype(np.float64)
    if len(piece) < width:
        return (earliest + latest) / 2
    sums = np.convolve(piece, np.ones(width), mode="valid")
    return (first + int(sums.argmin()) + width / 2) * hop
