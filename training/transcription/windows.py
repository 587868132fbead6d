"""Splits a long recording into windows that a model can take: cut in pauses, overlapping where there is no pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.transcription.speech_regions import Region, padded

CUT_FROM = 0.55
"""A region without pauses is cut at its quietest point in the last part of the window, from this share of it on."""


@dataclass(frozen=True)
class Window:
    """A stretch of a recording that the model takes as one input.

    start, end: seconds of the recording. stitch_at: second at which this window is joined to the window before it, where
    the two overlap; None where a pause separates them. steady: its level hardly changes, as that of speech does.
    """

    start: float
    end: float
    stitch_at: float | None = None
    steady: bool = False

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Cutting:
    """How a recording is cut into windows; all values in seconds.

    longest: the longest window. pause: a silence of this length always ends a window (unless ``pack``). Where a window
        would be too long, it is also cut in shorter silences, the longest of them first.
    pad: silence kept before and after speech. overlap: length that two windows share where there is no pause.
    pack: regions of speech that pauses separate are put into one window up to this length; 0: they are not.
    """

    longest: float = 30.0
    pause: float = 0.7
    pad: float = 0.1
    overlap: float = 3.0
    pack: float = 0.0

    def __post_init__(self) -> None:
        assert 0 < 3 * self.overlap <= self.longest and self.pack <= self.longest


def plan_windows(
    regions: Sequence[Region], level: np.ndarray, hop: float, seconds: float, cutting: Cutting
) -> list[Window]:
    """Windows that cover all regions of speech of a recording.

    Args:
        regions: stretches of speech, in seconds.
        level: loudness float ``[frames]``; low where a cut does the least harm.
        hop: seconds between two frames of ``level``.
        seconds: length of the recording.
        cutting: how to cut.

    Returns:
        The windows in order of their start.
    """
    windows: list[Window] = []
    groups = group(regions, cutting.longest - 2 * cutting.pad, cutting.pause)
    for region in _packed(padded(groups, seconds, cutting.pad), cutting.pack):
        windows += _cut(region, level, hop, cutting)
    return windows


def group(regions: Sequence[Region], longest: float, pause: float) -> list[Region]:
    """Neighbours joined across the shortest pauses first, while the result is no longer than ``longest``.

    A stretch that is too long for one window is therefore cut in its longest pauses. The cuts depend on the
    neighbouring regions only, not on the place in the recording.
    """
    starts, ends = [r.start for r in regions], [r.end for r in regions]
    first, last = (
        list(range(len(regions))),
        list(range(len(regions))),
    )  # of the group that ends, starts at each region
    parted = set(range(1, len(regions)))
    for gap, n in sorted((starts[n] - ends[n - 1], n) for n in parted):
        left, right = first[n - 1], last[n]
        if gap < pause and ends[right] - starts[left] <= longest:
            parted.remove(n)
            first[right], last[left] = left, right
    heads = [0, *sorted(parted)] if regions else []
    return [Region(starts[head], ends[last[head]]) for head in heads]


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
    start, stitch_at, half = region.start, None, cutting.overlap / 2
    while region.end - start > cutting.longest:
        latest = start + cutting.longest - half
        cut = _quietest(level, hop, start + CUT_FROM * cutting.longest, latest)
        windows.append(Window(start, cut + half, stitch_at))
        start, stitch_at = cut - half, cut
    windows.append(Window(start, region.end, stitch_at))
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
