"""Inline SVG for the report: bars with intervals and curves, coloured by the page's own light or dark theme.

Text is escaped here; the result is safe to place in the page as it is. Series are told apart by the classes
``s0``, ``s1``, …, to which the page gives colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 16, 40


@dataclass(frozen=True)
class Bar:
    """A value with its interval; ``low`` and ``high`` may be missing."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scale:
    """A linear axis from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the axis."""
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


class LogScale(Scale):
    """A logarithmic axis; both ends are above 0."""

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """1, 2 and 5 times powers of ten inside the axis; the powers alone where those are more than ``count`` wants."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        inside = [m * 10.0**n for n in powers for m in (1, 2, 5) if self.low <= m * 10.0**n <= self.high]
        if len(inside) <= 2 * count:
            return inside or [self.low, self.high]
        return [10.0**n for n in powers if self.low <= 10.0**n <= self.high]


def bars(
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[Bar | None]]],
    label: str,
    target: float | None,
) -> str:
    """Grouped bars (a group per run, a colour per series) with intervals, figures and an optional target line."""
    drawn = [bar for _, found in series for bar in found if bar]
    top = max([bar.value if bar.high is None else bar.high for bar in drawn] + [target or 0.0, 1.0])
    y = Scale(0.0, top * 1.12, HEIGHT - _BOTTOM, _TOP)
    slot = (WIDTH - _LEFT - _RIGHT) / len(groups)
    width = min(slot * 0.8 / len(series), 90.0)
    parts = [_grid(y)]
    for place, group in enumerate(groups):
        middle = _LEFT + slot * (place + 0.5)
        parts.append(_text(middle, HEIGHT - _BOTTOM + 20, group, "label"))
        for number, (name, found) in enumerate(series):
            bar = found[place]
            if bar:
                left = middle + (number - len(series) / 2) * width
                parts.append(_bar(bar, left, width * 0.9, y, number, f"{group}, {name}"))
    if target is not None:
        parts.append(
            f'<line class="target" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(target):.1f}" y2="{y(target):.1f}"/>'
        )
        parts.append(_text(_LEFT + 4, y(target) - 4, f"target {target:g}", "tick start"))
    return _svg(parts, label)


def curves(
    series: Sequence[tuple[str, Sequence[tuple[float, float]], bool]],
    label: str,
    colours: Sequence[int] | None = None,
    *,
    log: bool = False,
) -> str:
    """Lines, or dots where the third entry of a series is False, over optimiser steps.

    ``colours``: the number of each series' colour; several may have the same. By default each has its own. ``log``: a
    logarithmic axis for the values; those that are not above 0 have no place on it.
    """
    if log:
        series = [(name, [p for p in found if p[1] > 0], joined) for name, found, joined in series]
    points = [point for _, found, _ in series for point in found]
    if not points:
        return _svg([], label)
    x = Scale(min(p[0] for p in points), max(p[0] for p in points), _LEFT, WIDTH - _RIGHT)
    values = [p[1] for p in points]
    y: Scale = (
        LogScale(min(values) / 1.05, max(values) * 1.05, HEIGHT - _BOTTOM, _TOP)
        if log
        else Scale(0.0, max(values) * 1.05 or 1.0, HEIGHT - _BOTTOM, _TOP)
    )
    parts = [_grid(y)]
    parts += [_text(x(tick), HEIGHT - _BOTTOM + 16, f"{tick:g}", "tick") for tick in x.ticks(8)]
    parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - 4, "optimiser step", "tick"))
    numbers = range(len(series)) if colours is None else colours
    for number, (name, found, joined) in zip(numbers, series, strict=True):
        places = [(x(a), y(b)) for a, b in found]
        title = f"<title>{escape(name)}</title>"
        if joined:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(f'<polyline class="line s{number}" points="{path}">{title}</polyline>')
        else:
            parts += [
                f'<circle class="dot s{number}" cx="{a:.1f}" cy="{b:.1f}" r="4">{title}</circle>'
                for a, b in places
            ]
    return _svg(parts, label)


def reliability(bins: Sequence[tuple[float, float, int]], label: str) -> str:
    """Share of right words over their mean confidence, both from 0 to 1: (confidence, share, words) of each bin.

    Calibrated confidence lies on the diagonal; the more words a bin has, the larger its dot.
    """
    x, y = Scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT), Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    most = max((words for _, _, words in bins), default=1)
    parts = [_grid(y)]
    parts += [_text(x(tick), HEIGHT - _BOTTOM + 16, f"{tick:g}", "tick") for tick in x.ticks()]
    parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - 4, "confidence", "tick"))
    parts.append(f'<line class="target" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    for confidence, right, words in bins:
        title = f"<title>{words} words: confidence {confidence:.3f}, right {right:.3f}</title>"
        radius = 3 + 9 * math.sqrt(words / most)
        parts.append(
            f'<circle class="dot s0" cx="{x(confidence):.1f}" cy="{y(right):.1f}" r="{radius:.1f}">{title}</circle>'
        )
    return _svg(parts, label)


def _bar(bar: Bar, left: float, width: float, y: Scale, number: int, name: str) -> str:
    middle, height = left + width / 2, y(0) - y(bar.value)
    figure = f"{bar.value:.1f}"
    upper = bar.value if bar.high is None else bar.high
    whisker = ""
    if bar.low is not None and bar.high is not None:
        figure += f" [{bar.low:.1f}, {bar.high:.1f}]"
        whisker = (
            f'<path class="whisker" d="M{middle:.1f} {y(bar.low):.1f}V{y(bar.high):.1f}'
            f"M{middle - 5:.1f} {y(bar.low):.1f}h10M{middle - 5:.1f} {y(bar.high):.1f}h10"
            '"/>'
        )
    return (
        f'<rect class="bar s{number}" x="{left:.1f}" y="{y(bar.value):.1f}" width="{width:.1f}" '
        f'height="{max(height, 0):.1f}" rx="3"><title>{escape(f"{name}: {figure}")}</title></rect>'
        f"{whisker}{_text(middle, y(upper) - 5, f'{bar.value:.1f}', 'value')}"
    )


def _grid(y: Scale) -> str:
    lines = []
    for tick in y.ticks():
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        lines.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "tick end"))
    return "".join(lines)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _round_step(raw: float) -> float:
    """The nearest 1, 2, 2.5 or 5 times a power of ten at or above ``raw``."""
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return next((power * m for m in (1, 2, 2.5, 5) if power * m >= raw * (1 - 1e-9)), power * 10)
