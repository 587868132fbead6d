"""``polyvox compare A B``: the same utterances, two runs, paired bootstrap, in all and by domain.

With ``--target`` the runs are a base (A) and what was adapted from it (B), and a verdict is given: whether B is better
on the target domain and no worse on the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import UserError
from training.base.files import writable
from training.cli.command_line import Parser

MARGIN = 1.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox compare", description=__doc__)
    result.add_argument("a", type=Path, metavar="A", help="a *_predictions.csv, or a run's folder")
    result.add_argument("b", type=Path, metavar="B", help="the same of the other run")
    result.add_argument("--output", type=Path, default=None, help="also write the comparison as JSON")
    result.add_argument("--force", action="store_true", help="write over an existing --output")
    result.add_argument("--resamples", type=int, default=1000, help="bootstrap draws (default: 1000)")
    result.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    group = result.add_argument_group("verdict")
    group.add_argument(
        "--target", metavar="DOMAIN", default=None, help="where B should be better: its CER is to fall"
    )
    group.add_argument(
        "--others",
        metavar="DOMAIN",
        nargs="+",
        default=None,
        help="where B should be no worse (default: all other domains)",
    )
    group.add_argument(
        "--margin",
        type=float,
        default=None,
        help=f"points of CER that count as no worse; the interval's upper end must not pass it (default: {MARGIN:g})",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; write the JSON where ``--output`` says."""
    args = parser().parse_args(argv)
    if args.output and args.output.exists() and not args.force:
        raise UserError(f"--output {args.output}: exists; choose another name or say --force")
    if args.resamples < 100:
        raise UserError(f"--resamples {args.resamples}: give at least 100 for a 95 % interval")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: give a whole number from 0 on")
    if args.target is None and (args.others is not None or args.margin is not None):
        raise UserError("--others and --margin belong to a verdict; name its domain with --target")
    if args.output:
        writable(args.output.parent, "--output")
    from training.evaluation.compare import compare, table
    from training.evaluation.verdict import judge

    comparison = compare(args.a, args.b, resamples=args.resamples, seed=args.seed)
    verdict = None
    if args.target is not None:
        margin = MARGIN if args.margin is None else args.margin
        verdict = comparison["verdict"] = judge(comparison, args.target, args.others, margin)
    print(table(comparison))
    if verdict:
        print(f"verdict: {verdict['line']}")
    if args.output:
        text = json.dumps(comparison, ensure_ascii=False, indent=2, allow_nan=False)
        args.output.write_text(text + "\n", encoding="utf-8")
        print(f"written: {args.output}")
    return 0
