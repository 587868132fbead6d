"""``polyvox check-deployment``: is a Whisper as good in stock transformers and faster-whisper as here?

Short clips and long files (clips of one recording joined in order) are transcribed by ``polyvox transcribe``, by stock
transformers at 30 s, and by faster-whisper. The status is 1 where a pipeline's score lies above ours by more than a point.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from training.api.deployment import MAX_GAP, UTTERANCES, NotCheckable, Wanted, check_deployment
from training.base.errors import UserError, shown
from training.base.files import writable
from training.base.language_names import language_code
from training.cli.command_line import Parser
from training.cli.options import add_columns, add_domain

NOT_GOOD_ENOUGH = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox check-deployment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="a run's folder, a checkpoint, or a stock Whisper",
    )
    result.add_argument("--model", type=Path, metavar="FOLDER", help="the same, by name")
    result.add_argument(
        "--manifest", type=Path, default=None, help="utterances; default: the run's own split"
    )
    result.add_argument(
        "--split", choices=("test", "dev", "train"), default="test", help="of the run (default: test)"
    )
    result.add_argument(
        "--audio_root", type=Path, default=None, help="folder that relative audio paths start from"
    )
    add_columns(result)
    add_domain(result)
    result.add_argument(
        "--language",
        type=language_code,
        default=None,
        help="of the speech (a code or a name); default: the rows', else the model's",
    )
    result.add_argument(
        "--device", choices=("cpu", "cuda"), default=None, help="default: the GPU where there is one"
    )
    result.add_argument(
        "--utterances", type=int, default=UTTERANCES, help=f"short clips, 0: none (default: {UTTERANCES})"
    )
    _add_long_files(result)
    result.add_argument("--no_faster_whisper", action="store_true", help="stock transformers alone")
    result.add_argument(
        "--report_only",
        action="store_true",
        help="status 0 where a pipeline is worse, and where the data cannot be checked, which is said",
    )
    result.add_argument(
        "--resamples", type=int, default=Wanted.resamples, help="bootstrap draws (default: 1000)"
    )
    result.add_argument("--seed", type=int, default=Wanted.seed, help="seed of the draws (default: 0)")
    result.add_argument(
        "--output", type=Path, default=Path("outputs/results"), help="folder of the result files"
    )
    return result


def _add_long_files(result: argparse.ArgumentParser) -> None:
    result.add_argument("--files", type=int, default=Wanted.files, help="long files, 0: none (default: 12)")
    result.add_argument(
        "--seconds", type=float, default=Wanted.seconds, help="length of a long file (default: 110)"
    )
    result.add_argument(
        "--pause",
        type=float,
        default=Wanted.pause,
        help="silence between its clips in seconds (default: 0.3)",
    )
    result.add_argument(
        "--max_gap",
        type=float,
        default=MAX_GAP,
        help="points that a pipeline may be worse than ours (default: 1)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures and the verdict, write ``{run}_deployment.json`` and ``{run}_deployment.csv``.

    1: a pipeline is worse than ours by more than ``--max_gap``, or cannot use the folder; 0 with ``--report_only``.
    """
    args = parser().parse_args(argv)
    _check(args)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    writable(args.output, "--output")
    from training.data.columns import column_names

    given = {name: value for name, value in vars(args).items() if name in Wanted.__dataclass_fields__}
    wanted = Wanted(**given, columns=column_names(args.column), faster_whisper=not args.no_faster_whisper)
    with shown(warnings_apart=True):
        try:
            verdict = check_deployment(args.folder, wanted, args.output)["verdict"]
        except NotCheckable as reason:
            if not args.report_only:
                raise
            print(f"not checked: {reason}")
            return 0
    for problem in verdict["problems"]:
        print(f"problem: {problem}")
    print(f"verdict: {verdict['line']} (at most {args.max_gap:g} points worse than polyvox)")
    return 0 if verdict["passed"] or args.report_only else NOT_GOOD_ENOUGH


def _check(args: argparse.Namespace) -> None:
    """`UserError` without a model, and for numbers that mean nothing. ``folder`` is the model's afterwards."""
    if args.folder is not None and args.model is not None and args.folder != args.model:
        raise UserError(f"{args.folder} and --model {args.model}: give one of them")
    args.folder = args.folder or args.model
    if args.folder is None:
        raise UserError("which model? --model FOLDER")
    for name, least in (
        ("utterances", 0),
        ("files", 0),
        ("pause", 0),
        ("max_gap", 0),
        ("seed", 0),
        ("resamples", 100),
    ):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)}: give at least {least}")
    if args.seconds <= 30:
        raise UserError(f"--seconds {args.seconds:g}: a long file is longer than Whisper's window of 30 s")
    if not args.utterances and not args.files:
        raise UserError("--utterances 0 --files 0: nothing to check")
