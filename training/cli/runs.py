"""``polyvox runs``: a table of the runs: scores with intervals, steps, time.

A run that was never evaluated shows the scores of its dev split, without intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.nearest import RUNS, path_hint
from training.base.terminal import show_table
from training.cli.command_line import Parser
from training.data.metric import LABELS, METRICS

if TYPE_CHECKING:
    from training.evaluation.run_overview import RunLine

NOTHING = float("inf")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "outputs", nargs="?", type=Path, default=RUNS, help="folder of the runs (default: outputs)"
    )
    result.add_argument("--results", type=Path, help="folder of the evaluations (default: OUTPUTS/results)")
    result.add_argument(
        "--sort", choices=sorted(keys()), default="date", help="default: date, the newest first"
    )
    result.add_argument("--reverse", action="store_true", help="the other way round")
    result.add_argument("--json", action="store_true", help="all figures as JSON")
    return result


def keys() -> dict[str, Callable[[RunLine], Any]]:
    """What can be sorted by; the best, the shortest and the newest come first, what has no value last."""
    return {
        "date": lambda line: -line.date.timestamp(),
        "name": lambda line: line.name,
        "steps": lambda line: line.steps,
        "time": lambda line: NOTHING if line.minutes is None else line.minutes,
        **{name: _by_score(name) for name in LABELS},
    }


def _by_score(name: str) -> Callable[[RunLine], float]:
    sign = -1 if METRICS[name].higher_is_better else 1

    def key(line: RunLine) -> float:
        value = (line.scores.get(name) or {}).get("value")
        return NOTHING if value is None else sign * value

    return key


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; status 2 where there is no run."""
    args = parser().parse_args(argv)
    from training.evaluation.run_overview import overview

    if not args.outputs.is_dir():
        raise UserError(
            f"{args.outputs}: no such folder{path_hint(args.outputs)}; polyvox train makes runs in outputs/"
        )
    lines = sorted(overview(args.outputs, args.results), key=keys()[args.sort], reverse=args.reverse)
    if args.json:
        print(json.dumps([line.as_dict() for line in lines], indent=2, ensure_ascii=False))
        return 0
    if not lines:
        raise UserError(f"{args.outputs}: no runs in it; polyvox train --config FILE makes one")
    _show(lines)
    return 0


def _show(lines: Sequence[RunLine]) -> None:
    from training.evaluation.summary import score_text

    shown = [name for name in LABELS if any(name in line.scores for line in lines)]
    head = ["run", "model", "state", "steps", "minutes", "scored on", *(LABELS[name] for name in shown)]
    rows = [
        [
            line.name,
            line.model,
            line.state,
            f"{line.steps:,}",
            "–" if line.minutes is None else f"{line.minutes:.1f}",
            line.scored_on or "–",
            *(score_text(line.scores.get(name)) for name in shown),
        ]
        for line in lines
    ]
    show_table(head, rows, right=(3, 4))
    best = lines[0].folder
    print(
        f"\n95 % intervals in brackets. Next: polyvox diagnose {best} · polyvox charts · polyvox compare A B"
    )
