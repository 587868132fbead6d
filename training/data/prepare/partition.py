"""Groups of utterances to parts of given shares: whole groups only, balanced by seconds, seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GOOD_ENOUGH = 0.02
"""A partition is taken at once when every part is within this share of the seconds that it should have."""
SMALL = 0.1
"""Groups are small when none has more than this share of what the smallest part should have."""

_RESTARTS = 200
_WORK = 2_000_000


def partition(
    seconds: np.ndarray, shares: Sequence[float], seed: int, taken: Sequence[float] | None = None
) -> np.ndarray:
    """The part of each group, int64 ``[groups]``, for ``seconds`` float ``[groups]`` and ``shares`` that add up to 1.

    Groups are placed largest first, in an order that is shuffled a little, each into the part that lacks most;
    then groups are moved and swapped while that helps. Where every group is small they are placed in any order:
    largest first would fill the smaller parts with what is left, the shortest groups. The first good result counts, else the best of many.
    ``taken`` is what the parts hold already. No part with a share stays empty as long as there are groups enough.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(shares)) if taken is None else np.asarray(taken, dtype=float)
    targets = (seconds.sum() + held.sum()) * np.asarray(shares, dtype=float)
    best, best_error = None, np.inf
    for _ in range(int(np.clip(_WORK // max(1, len(seconds)), 1, _RESTARTS))):
        parts = _greedy(seconds, targets, held, rng)
        _fill_empty(parts, seconds, targets, held)
        if len(seconds) <= 500:
            _improve(parts, seconds, targets, held)
        error = deviation(parts, seconds, targets, held)
        if error < best_error:
            best, best_error = parts, error
        if best_error <= GOOD_ENOUGH:
            break
    assert best is not None
    return best


def deviation(parts: np.ndarray, seconds: np.ndarray, targets: np.ndarray, held: np.ndarray) -> float:
    """The largest relative distance of a part from its target; 0 is perfect."""
    wanted = targets > 0
    loads = held + np.bincount(parts, weights=seconds, minlength=len(targets))
    return float(np.max(np.abs(loads[wanted] / targets[wanted] - 1)))


def _greedy(
    seconds: np.ndarray, targets: np.ndarray, held: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    if seconds.max(initial=0.0) <= SMALL * targets[targets > 0].min():
        order = rng.permutation(len(seconds))
    else:
        order = np.argsort(-seconds * rng.uniform(0.5, 1.0, len(seconds)), kind="stable")
    lacking = (targets - held).tolist()
    open_parts = [j for j, target in enumerate(targets) if target > 0]
    parts = np.zeros(len(seconds), dtype=np.int64)
    lengths = seconds.tolist()
    for group in order.tolist():
        part = max(open_parts, key=lacking.__getitem__)
        parts[group] = part
        lacking[part] -= lengths[group]
    return parts


def _fill_empty(parts: np.ndarray, seconds: np.ndarray, targets: np.ndarray, held: np.ndarray) -> None:
    """Give a part that got nothing the smallest group of the part with the most groups."""
    counts = np.bincount(parts, minlength=len(targets))
    for part in np.flatnonzero((targets > 0) & (counts == 0) & (held == 0)):
        donor = int(np.argmax(counts))
        if counts[donor] < 2:
            return
        groups = np.flatnonzero(parts == donor)
        parts[groups[np.argmin(seconds[groups])]] = part
        counts = np.bincount(parts, minlength=len(targets))


def _improve(parts: np.ndarray, seconds: np.ndarray, targets: np.ndarray, held: np.ndarray) -> None:
    """Move single groups, or swap two, to the neighbour of least squared relative error until none is better."""
    wanted = np.flatnonzero(targets > 0)
    loads = held + np.bincount(parts, weights=seconds, minlength=len(targets))
    for _ in range(4 * len(seconds)):
        counts = np.bincount(parts, minlength=len(targets))
        step = _best_step(parts, seconds, targets, loads, wanted, counts)
        if step is None:
            return
        for group, part in step:
            loads[parts[group]] -= seconds[group]
            loads[part] += seconds[group]
            parts[group] = part


def _best_step(
    parts: np.ndarray,
    seconds: np.ndarray,
    targets: np.ndarray,
    loads: np.ndarray,
    wanted: np.ndarray,
    counts: np.ndarray,
) -> list[tuple[int, int]] | None:
    """The move or swap between two parts that lowers the error most; None when none lowers it."""
    best: tuple[float, list[tuple[int, int]]] = (-1e-12, [])
    for a in wanted:
        for b in wanted:
            if a == b:
                continue
            mine, theirs = np.flatnonzero(parts == a), np.flatnonzero(parts == b)
            if len(mine) > 1 or (counts[a] == 1 and loads[a] > seconds[mine].sum()):
                gain = _change(loads, targets, a, b, seconds[mine])
                best = min(
                    best, (float(gain.min()), [(int(mine[gain.argmin()]), int(b))]), key=lambda x: x[0]
                )
            if a < b and len(mine) and len(theirs):
                gain = _change(loads, targets, a, b, seconds[mine][:, None] - seconds[theirs][None, :])
                i, j = np.unravel_index(int(gain.argmin()), gain.shape)
                swap = [(int(mine[i]), int(b)), (int(theirs[j]), int(a))]
                best = min(best, (float(gain.min()), swap), key=lambda x: x[0])
    return best[1] or None


def _change(loads: np.ndarray, targets: np.ndarray, a: int, b: int, moved: np.ndarray) -> np.ndarray:
    """How the squared relative error changes when ``moved`` seconds go from part ``a`` to part ``b``."""
    before = (loads[a] / targets[a] - 1) ** 2 + (loads[b] / targets[b] - 1) ** 2
    return ((loads[a] - moved) / targets[a] - 1) ** 2 + ((loads[b] + moved) / targets[b] - 1) ** 2 - before
