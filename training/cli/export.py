"""``polyvox export``: a trained model for other engines, compared with the original before it counts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import shown
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.cli.options import count

FORMATS = ("onnx", "ctranslate2", "ggml", "nemo")
PRECISIONS = ("fp32", "fp16", "int8")
NOT_PASSED = 1
"""Exit status where the exported model is not what was scored."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox export", description=__doc__)
    result.add_argument("--model", type=Path, required=True, help="a finished run, or a folder with a model")
    result.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    result.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    result.add_argument("--output", type=Path, required=True, help="folder to write")
    result.add_argument(
        "--task", choices=("transcribe", "translate", "both"), default=None, help="default: all it knows"
    )
    result.add_argument("--force", action="store_true", help="replace an earlier export")
    group = result.add_argument_group("comparison with the original")
    group.add_argument("--split", choices=("dev", "test"), default="test", help="of the run (default: test)")
    group.add_argument(
        "--manifest",
        "--check_manifest",
        dest="check_manifest",
        action=OneValue,
        type=Path,
        metavar="FILE",
        default=None,
        help="a manifest instead of the run's split",
    )
    group.add_argument("--utterances", type=count, default=200, help="how many are compared (200)")
    group.add_argument(
        "--max_drift",
        type=float,
        default=None,
        help="points of WER (Korean: CER) or BLEU that may be lost; default: fp32 none and identical tokens, fp16 0.5, int8 1.0",
    )
    group.add_argument("--no_check", action="store_true", help="compare nothing; the folder says so for good")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Write, compare, report. 1: the comparison failed or could not decide."""
    args = parser().parse_args(argv)
    from training.api.exporting import export_model

    with shown(warnings_apart=True):
        done = export_model(
            args.model,
            args.output,
            format=args.format,
            tasks=(args.task,) if args.task not in (None, "both") else None,
            precision=args.precision,
            split=args.split,
            manifest=args.check_manifest,
            utterances=args.utterances,
            max_drift=args.max_drift,
            check=not args.no_check,
            force=args.force,
        )
    for finding in done.findings:
        print(finding.line)
    print(f"{done.folder}: {args.format} {args.precision}, {done.size / 1e6:.2f} MB, {done.verdict}")
    if done.passed:
        return 0
    print(f"the exported model is not offered: {args.output} was not written", file=sys.stderr)
    return NOT_PASSED
