"""``polyvox diagnose``: what is probably wrong with a run, and the command to try next.

Rules look at what the run has stored: its losses, its scores, its hypotheses. Nothing is computed anew. A run that was not
evaluated yet is judged by its losses and the scores of its dev split alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from training.base.nearest import RUNS
from training.cli.command_line import Parser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox diagnose", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("run", type=Path, help="a run's folder, or its name in --outputs")
    result.add_argument("--outputs", type=Path, default=RUNS, help="folder of the runs (default: outputs)")
    result.add_argument(
        "--results", type=Path, help="folder of the evaluations (default: results beside the run's folder)"
    )
    result.add_argument("--json", action="store_true", help="the diagnoses as JSON")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print the diagnoses of each evaluation of the run."""
    args = parser().parse_args(argv)
    from training.diagnosis.rules import diagnose
    from training.diagnosis.told import drawn, evidence_of, lines, split_of
    from training.evaluation.run_overview import RESULTS, find_run, results_of
    from training.evaluation.stored import load_results

    folder = find_run(args.run, args.outputs)
    place = args.results or folder.parent / RESULTS
    evaluations = results_of(folder, load_results(place) if place.is_dir() else [])
    found = {split_of(one.report): diagnose(evidence_of(folder, one)) for one in evaluations} or {
        "its dev split while it trained": diagnose(evidence_of(folder, None))
    }
    if args.json:
        told = {name: [one.as_dict() for one in each] for name, each in found.items()}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    for name, each in found.items():
        print("\n".join(drawn(lines(each, f"{folder} on {name}"))))
    if not evaluations:
        print(f"not evaluated yet, so no hypotheses were looked at: polyvox evaluate --model {folder}")
    return 0
