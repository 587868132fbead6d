"""The three charts of a set of runs as PNG files (matplotlib, Agg).

A run has one colour and one name in all of them (`training.evaluation.run_labels`); runs also differ by line style, and
every bar carries its figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.example import TRANSCRIBE
from training.data.metric import BLEU, of_task
from training.evaluation.run_labels import colour, labels, readable
from training.evaluation.stored import CHANGED, History, Result, judged_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")
FEW = 12
"""So many entries of a legend find room inside the chart."""
_Bars = tuple[str, list[dict[str, Any] | None]]


def training_loss(histories: Sequence[History], path: Path) -> bool:
    """Training loss (thin: as logged; bold: smoothed) and evaluation loss (dots) by step; False if none logged."""
    named = [
        (number, name, history)
        for number, (name, history) in enumerate(zip(labels(histories), histories, strict=True))
        if history.curve("loss") or history.curve("eval_loss")
    ]
    if not named:
        return False

    from matplotlib.ticker import FuncFormatter, NullFormatter

    def draw(axes: Axes) -> None:
        entries = [one for number, name, history in named for one in _loss_curve(axes, history, number, name)]
        axes.set(xlabel="optimiser step", ylabel="loss per target token (log scale)", yscale="log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        lowest, highest = axes.get_ylim()
        axes.yaxis.set_major_formatter(plain)
        # Over more than a decade and a half the figures between the powers of ten would lie on each other.
        axes.yaxis.set_minor_formatter(plain if highest < 30 * lowest else NullFormatter())
        _legend(axes, entries)

    _figure(path, "Training loss", draw, more=max(0, 2 * len(named) - FEW) / 2)
    return True


def wer_comparison(results: Sequence[Result], path: Path) -> bool:
    """WER and CER of every run with their intervals; False where no run transcribed."""
    series: list[_Bars] = [
        (one.label, [result.report["scores"].get(one.name) for result in results])
        for one in of_task(TRANSCRIBE)
    ]
    targets = [
        (one.label, one.target)
        for one in of_task(TRANSCRIBE)
        if one.target is not None and judged_by(results, one)
    ]
    return _bar_chart(results, series, path, "Errors in transcription", "percent (lower is better)", targets)


def bleu_comparison(results: Sequence[Result], path: Path) -> bool:
    """BLEU on all rows, on the rows that change, and what copying the transcript scores; intervals drawn."""
    series: list[_Bars] = [
        ("all rows", [result.report["scores"].get(BLEU.name) for result in results]),
        ("rows that change", [result.translated(CHANGED, "ours", BLEU) for result in results]),
        (
            "copy of own transcript, rows that change",
            [result.translated(CHANGED, "copy_of_own_transcript", BLEU) for result in results],
        ),
        (
            "copy of reference transcript, rows that change",
            [result.translated(CHANGED, "copy_of_reference_transcript", BLEU) for result in results],
        ),
    ]
    targets = [(BLEU.label, BLEU.target)] if BLEU.target is not None and judged_by(results, BLEU) else []
    return _bar_chart(results, series, path, "Translation", f"{BLEU.label} (higher is better)", targets)


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centred moving mean over about a twentieth of the points: no lag behind the curve, shorter at the ends."""
    half = len(points) // 40
    values = [y for _, y in points]
    smoothed = []
    for place, (x, _) in enumerate(points):
        reach = min(half, place, len(points) - 1 - place)
        window = values[place - reach : place + reach + 1]
        smoothed.append((x, sum(window) / len(window)))
    return smoothed


def _loss_curve(axes: Axes, history: History, number: int, name: str) -> list[tuple[Any, str]]:
    """Draws a run; what of it goes into the legend, and under which name."""
    shade, style, entries = colour(number), _STYLES[number % len(_STYLES)], []
    points = [(x, y) for x, y in history.curve("loss") if y > 0]
    if points:
        axes.plot(*zip(*points, strict=True), color=shade, alpha=0.25, linewidth=1)
        (line,) = axes.plot(*zip(*smooth(points), strict=True), color=shade, linestyle=style, linewidth=2)
        entries.append((line, f"{name}, training"))
    held_out = [(x, y) for x, y in history.curve("eval_loss") if y > 0]
    if held_out:
        (dots,) = axes.plot(
            *zip(*held_out, strict=True),
            color=shade,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=6,
            markeredgecolor="white",
            linestyle="none",
        )
        entries.append((dots, f"{name}, evaluation"))
    return entries


def _legend(axes: Axes, entries: Sequence[tuple[Any, str]]) -> None:
    """Every entry under its name, whatever is in it: matplotlib leaves out names that begin with ``_``, and takes what
    stands between dollars for mathematics. Many entries go below the chart."""
    handles = [handle for handle, _ in entries]
    unnamed = [f"{number}" for number in range(len(entries))]
    if len(entries) <= FEW:
        legend = axes.legend(handles, unnamed, frameon=False)
    else:
        legend = axes.figure.legend(
            handles, unnamed, frameon=False, loc="outside lower center", ncols=2, fontsize=8
        )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _bar_chart(
    results: Sequence[Result],
    series: Sequence[_Bars],
    path: Path,
    title: str,
    label: str,
    targets: Sequence[tuple[str, float]],
) -> bool:
    shown = [
        (name, bars) for name, bars in series if any(bar and bar.get("value") is not None for bar in bars)
    ]
    if not shown:
        return False
    width = min(0.8 / len(shown), 0.28)

    def draw(axes: Axes) -> None:
        for number, (name, bars) in enumerate(shown):
            offset = (number - (len(shown) - 1) / 2) * width
            _bars(axes, bars, offset, width, colour(number), name)
        for style, (name, target) in zip((":", "--"), targets, strict=False):
            axes.axhline(
                target, color="0.35", linestyle=style, linewidth=1.2, label=f"{name} target {target:g}"
            )
        names = [readable(result.run) for result in results]
        crowded = sum(map(len, names)) > 70
        turn: dict[str, Any] = {"rotation": 20, "ha": "right"} if crowded else {}
        axes.set_xticks(range(len(results)), names, parse_math=False, **turn)
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
        axes.margins(y=0.1)
        axes.set_xlim(-0.6, len(results) - 0.4)
        axes.figure.legend(frameon=False, loc="outside lower center", ncols=2)

    _figure(path, f"{title}, 95 % intervals", draw)
    return True


def _bars(
    axes: Axes, bars: Sequence[dict[str, Any] | None], offset: float, width: float, shade: str, name: str
) -> None:
    places = [(x + offset, bar) for x, bar in enumerate(bars) if bar and bar.get("value") is not None]
    heights = [bar["value"] for _, bar in places]
    errors = [
        [max(bar["value"] - (bar["value"] if bar["low"] is None else bar["low"]), 0.0) for _, bar in places],
        [
            max((bar["value"] if bar["high"] is None else bar["high"]) - bar["value"], 0.0)
            for _, bar in places
        ],
    ]
    xs = [x for x, _ in places]
    axes.bar(xs, heights, width * 0.92, color=shade, label=name)
    axes.errorbar(xs, heights, errors, fmt="none", ecolor="0.15", elinewidth=1.3, capsize=4)
    for x, height, above in zip(xs, heights, errors[1], strict=True):
        axes.annotate(
            f"{height:.1f}",
            (x, height + above),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )


def _figure(path: Path, title: str, draw: Callable[[Axes], None], more: float = 0.0) -> None:
    """``more``: lines of a legend below the chart that the page is longer for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8 + 0.18 * more), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes)
    axes.set_title(title, loc="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
