"""``polyvox evaluate``: score a trained model on a test split, once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.api.scoring import evaluate
from training.base.errors import UserError, shown
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.cli.options import (
    add_columns,
    add_domain,
    add_model,
    add_options,
    from_arguments,
    to_arguments,
)

if TYPE_CHECKING:
    from training.config.schema import Config

SPLITS = ("test", "dev", "train")
SCORING = ("config", "test_csv", "name", "teacher", "swap_test", "evaluation", "overrides")
"""Options that say how utterances with references are scored."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox evaluate", description=__doc__)
    add_model(result, "a run's folder, a checkpoint, an exported folder, or a stock model", required=False)
    result.add_argument(
        "--config",
        nargs="+",
        default=None,
        metavar=("FILE", "key=value"),
        help="data and settings of this configuration, with nothing trained: of --model_dir, else of the weights that it "
        "starts from",
    )
    result.add_argument(
        "--model_type", default=None, help="inferred from the folder; refused where it contradicts it"
    )
    result.add_argument(
        "--manifest",
        "--test_csv",
        dest="test_csv",
        action=OneValue,
        type=Path,
        default=None,
        help="utterances; default: the run's own split",
    )
    add_columns(result)
    result.add_argument(
        "--split", choices=SPLITS, default="test", help="which of the run's own splits (default: test)"
    )
    result.add_argument(
        "--output", type=Path, default=Path("outputs/results"), help="folder of the result files"
    )
    result.add_argument(
        "--name",
        default=None,
        help="of the result files; default: the run's, and the split unless that is test",
    )
    result.add_argument(
        "--audio_file", type=Path, nargs="+", default=None, help="transcribe these files, score nothing"
    )
    result.add_argument(
        "--teacher",
        type=Path,
        default=None,
        help="timestamps_manifest.json whose labels of the reference words are scored beside the model's times",
    )
    add_options(result)
    add_domain(result)
    _add_scoring(result)
    return result


def _add_scoring(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        "--swap_test",
        action="store_true",
        help="domain_whisper: score once more with another domain's token, with none, and with the predicted one",
    )
    result.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="score the pretrained weights that the run started from too (default: yes; answers are kept in --output)",
    )
    result.add_argument("--no_baseline", dest="baseline", action="store_false", help=argparse.SUPPRESS)
    result.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="keys of evaluation, data and audio other than the run's, e.g. evaluation.resamples=200",
    )
    result.add_argument(
        "--evaluation",
        nargs="*",
        default=[],
        metavar="key=value",
        help="the same for keys of evaluation, without the block's name: resamples=200",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Load, decode, score, write ``{name}_metrics.json`` and ``{name}_predictions.csv``.

    1: scored, but more than ``data.max_dropped_share`` of the utterances could not be.
    """
    args = parser().parse_intermixed_args(argv)
    _check_options(args)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.audio_file:
        return _transcribe(args)
    from training.data.columns import column_names

    with shown(warnings_apart=True):
        scores = evaluate(
            args.model_dir,
            args.split,
            manifest=args.test_csv,
            audio_root=args.audio_root,
            columns=column_names(args.column),
            output=args.output,
            name=args.name,
            domain=args.domain,
            options=from_arguments(args),
            batch_seconds=args.batch_seconds,
            overrides=[*args.evaluation, *args.overrides],
            teacher=args.teacher,
            swap_test=args.swap_test,
            model_type=args.model_type,
            baseline=args.baseline,
            config=_configuration(args),
        )
    return 1 if scores.too_many_dropped else 0


def _configuration(args: argparse.Namespace) -> Config | None:
    """That of ``--config``, with its overrides."""
    if args.config is None:
        return None
    from training.config.load import load_config

    file, *overrides = args.config
    config = load_config(Path(file), overrides)
    if config.model is None:
        raise UserError(f"--config {file}: no model: block; see docs/configuration.md")
    return config


def _check_options(args: argparse.Namespace) -> None:
    """`UserError` for what would be ignored."""
    if args.model_dir is None and args.config is None:
        raise UserError(
            "which model? --model_dir FOLDER, or --config FILE for the weights that it starts from"
        )
    if args.audio_file and args.model_dir is None:
        raise UserError("--audio_file: say with --model_dir what transcribes")
    given = [name for name in SCORING if getattr(args, name)]
    if args.audio_file and given:
        named = {"overrides": "key=value", "test_csv": "--manifest"}.get(given[0], f"--{given[0]}")
        raise UserError(f"{named}: --audio_file only transcribes, nothing is scored; leave out one of them")


def _transcribe(args: argparse.Namespace) -> int:
    """The same model on files of no split: `polyvox transcribe`."""
    from training.cli import transcribe

    files = [str(path) for path in args.audio_file]
    domain = ["--domain", args.domain] if args.domain else []
    return transcribe.main([*files, "--model", str(args.model_dir), *domain, *to_arguments(args)])
