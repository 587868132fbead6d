"""What a run is called in charts, and its colour: each has a name and a colour of its own, the same in all of them."""

from __future__ import annotations

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Sequence

from training.evaluation.stored import History

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK = ("#3d9bd6", "#ef7f32", "#2bbf94", "#dd96bd", "#f0b53a", "#7ccbf3")
"""Okabe and Ito's (2008) for light pages, and a lighter form of each for dark ones."""
_GOLDEN = 0.618034


def labels(histories: Sequence[History]) -> list[str]:
    """A name for each run: that of the experiment; where several have the same, with the folder; else with a number."""
    names = [readable(history.experiment) for history in histories]
    names = _told_apart(names, [readable(history.run) for history in histories])
    names = _told_apart(names, [history.place and readable(history.place) for history in histories])
    while len(set(names)) < len(names):
        names = _told_apart(names, [str(number) for number in range(1, len(names) + 1)])
    return names


def _told_apart(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """The names, those that are not alone followed by what is ``more`` of them."""
    counts = Counter(names)
    return [
        f"{name} ({extra})" if counts[name] > 1 and extra else name
        for name, extra in zip(names, more, strict=True)
    ]


def readable(name: str) -> str:
    """A name as a chart can show it: no line breaks, control characters or broken code points, never empty."""
    shown = "".join("�" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)
    return shown.strip() or "(no name)"


def colour(number: int, dark: bool = False) -> str:
    """The colour of run ``number``, ``#rrggbb``; another for each. Behind the palette hues a golden angle apart."""
    palette = DARK if dark else LIGHT
    if number < len(palette):
        return palette[number]
    place = number - len(palette)
    hue = (0.03 + place * _GOLDEN) % 1.0
    lightness = (0.62, 0.72, 0.52)[place % 3] if dark else (0.38, 0.28, 0.5)[place % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.7)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
