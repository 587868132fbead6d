"""Split a manifest: ``polyvox split --manifest … --output_dir data/splits``.

Whole videos (or speakers, or sentences) go to train, dev or test, balanced by duration. What the parts share all the
same is printed and stored in ``splits.json``. Rows with a ``split_hint`` go to ``<hint>.csv`` and nowhere else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.data.columns import column_names
from training.data.prepare.split import GROUPINGS, parse_ratios, split
from training.data.prepare.split_report import overlap_lines, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--manifest", type=Path, required=True, help="manifest: TSV, CSV, JSONL or Parquet")
    parser.add_argument(
        "--output",
        "--output_dir",
        dest="output_dir",
        action=OneValue,
        type=Path,
        default=Path("data/splits"),
        help="folder of the parts (data/splits)",
    )
    parser.add_argument(
        "--ratios", default="80/10/10", help="train/dev/test in per cent of the duration (80/10/10)"
    )
    parser.add_argument("--seed", type=int, default=42, help="another seed, another split (42)")
    parser.add_argument(
        "--by",
        choices=(*GROUPINGS, "column"),
        help="what is never torn apart: videos, speakers, equal sentences (default: the first whose column is there); column: "
        "take the manifest's column 'split' as it is",
    )
    parser.add_argument(
        "--audio_root", type=Path, help="folder of relative audio paths (otherwise the manifest's own)"
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="the manifest's name of one of our columns, such as transcript=text; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that this command has not made")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox split", description=(__doc__ or "").split("\n\n")[1])
    add_arguments(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Split, write, print what the parts hold and share."""
    arguments = parser().parse_args(argv)
    report = split(
        arguments.manifest,
        arguments.output_dir,
        ratios=parse_ratios(arguments.ratios),
        seed=arguments.seed,
        by=arguments.by,
        audio_root=arguments.audio_root,
        columns=column_names(arguments.column),
        force=arguments.force,
    )
    print(table(report["parts"]))
    for line in [*overlap_lines(report["overlap"]), *report["warnings"]]:
        print(line)
    print(f"written: {', '.join(str(arguments.output_dir / f'{name}.csv') for name in report['parts'])}")
    return 0
