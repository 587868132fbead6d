"""How much speech a split holds: utterances and hours, in all and by domain."""

from __future__ import annotations

from typing import Any

import numpy as np


def amounts(rows: Any) -> dict[str, Any]:
    """``utterances``, ``hours`` and ``languages`` of a source's rows, and ``domains``: the first two of each domain
    that rows name."""
    seconds = rows.durations.astype(float)
    domains = np.array([name or "" for name in cells(rows, "domain")])
    return {
        **_amount(seconds),
        "languages": sorted({name for name in cells(rows, "language") if name}),
        "domains": {str(name): _amount(seconds[domains == name]) for name in sorted(set(domains) - {""})},
    }


def _amount(seconds: np.ndarray) -> dict[str, float]:
    return {"utterances": len(seconds), "hours": float(seconds.sum()) / 3600}


def cells(rows: Any, name: str) -> list[str | None]:
    """A column of a source's rows; None everywhere where there is no such column."""
    return rows.column(name) if name in rows.column_names else [None] * len(rows)
