"""What the parts of a split hold, and what they share (leaks): as data for ``splits.json``, as text for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

Keys = Mapping[str, Sequence[str | None]]


def describe_parts(
    parts: Mapping[str, np.ndarray], durations: np.ndarray, keys: Keys
) -> dict[str, dict[str, Any]]:
    """Per part: utterances, hours, and how many different values each of ``keys`` has there."""
    total = float(sum(durations[rows].sum(dtype=float) for rows in parts.values()))
    return {
        name: {
            "utterances": len(rows),
            "hours": round(float(durations[rows].sum(dtype=float)) / 3600, 5),
            "share": round(float(durations[rows].sum(dtype=float)) / total, 4) if total else 0.0,
            **{key: len(_values(cells, rows)) for key, cells in keys.items()},
        }
        for name, rows in parts.items()
    }


def describe_overlap(parts: Mapping[str, np.ndarray], keys: Keys) -> dict[str, dict[str, dict[str, Any]]]:
    """Per pair of parts and key: how many values both have, how many rows of the later part have one of them.

    Pairs are named ``train/test``; up to five shared values stand beside the counts.
    """
    return {
        f"{first}/{second}": {key: _shared(cells, parts[first], parts[second]) for key, cells in keys.items()}
        for first, second in combinations(parts, 2)
    }


def _values(cells: Sequence[str | None], rows: np.ndarray) -> set[str]:
    return {cell for row in rows if (cell := cells[row])}


def _shared(cells: Sequence[str | None], first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    both = _values(cells, first) & _values(cells, second)
    return {
        "shared": len(both),
        "utterances": sum(cells[row] in both for row in second) if both else 0,
        "examples": sorted(both)[:5],
    }


def table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """`describe_parts` as a table."""
    columns = list(dict.fromkeys(key for part in parts.values() for key in part))
    rows = [["part", *columns]] + [
        [name, *(_cell(key, part[key]) for key in columns)] for name, part in parts.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def _cell(key: str, value: Any) -> str:
    if key == "hours":
        return f"{value:.3f}"
    return f"{value:.1%}" if key == "share" else f"{value:,}"


def overlap_lines(overlap: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """`describe_overlap` in sentences; where nothing overlaps, one line names what was compared."""
    lines = []
    for pair, keys in overlap.items():
        first, second = pair.split("/")
        for key, found in keys.items():
            if found["shared"]:
                lines.append(
                    f"{first} and {second} share {found['shared']:,} {key} ({found['utterances']:,} utterances of "
                    f"{second}), such as {found['examples'][0][:60]!r}"
                )
    if lines:
        return lines
    compared = dict.fromkeys(key for keys in overlap.values() for key in keys)
    return [f"no two parts share {' or '.join(compared)}"] if compared else []
