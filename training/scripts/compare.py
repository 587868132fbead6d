"""``polyvox compare A B``: the same utterances, two runs, paired bootstrap."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError, exit_on_user_error
from training.folders import writable


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox compare", description=__doc__, allow_abbrev=False)
    result.add_argument("a", type=Path, metavar="A", help="a *_predictions.csv, or a run's folder")
    result.add_argument("b", type=Path, metavar="B", help="the same of the other run")
    result.add_argument("--output", type=Path, default=None, help="also write the comparison as JSON")
    result.add_argument("--force", action="store_true", help="write over an existing --output")
    result.add_argument("--resamples", type=int, default=1000, help="bootstrap draws (default: 1000)")
    result.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; write the JSON where ``--output`` says."""
    args = parser().parse_args(argv)
    if args.output and args.output.exists() and not args.force:
        raise UserError(f"--output {args.output}: exists; choose another name or say --force")
    if args.resamples < 100:
        raise UserError(f"--resamples {args.resamples}: give at least 100 for a 95 % interval")
    if args.output:
        writable(args.output.parent, "--output")
    from training.evaluation.compare import compare, table

    comparison = compare(args.a, args.b, resamples=args.resamples, seed=args.seed)
    print(table(comparison))
    if args.output:
        text = json.dumps(comparison, ensure_ascii=False, indent=2, allow_nan=False)
        args.output.write_text(text + "\n", encoding="utf-8")
        print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    exit_on_user_error(main)
