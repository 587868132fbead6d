"""Clean a manifest: ``polyvox preprocess --input … --output …``.

Texts are cleaned (`training.data.text`), rows that cannot be used are left out. Every one of them stands in the
ledger ``<output>_dropped.tsv`` beside the output, with its reason. Clips that are too long are dropped, never cut:
their text would stay whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import UserError
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.data.columns import column_names
from training.data.korean_text import KoreanRules
from training.data.missing import KEEP, checked
from training.data.prepare.clean import _add_korean_arguments, _add_sound_arguments, ledger_path, preprocess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--manifest",
        "--input",
        dest="input",
        action=OneValue,
        type=Path,
        required=True,
        help="manifest: TSV, CSV, JSONL or Parquet",
    )
    parser.add_argument("--output", type=Path, required=True, help="cleaned manifest: .tsv, .csv or .jsonl")
    parser.add_argument(
        "--min_duration", type=float, default=0.5, help="seconds; shorter clips are dropped (0.5)"
    )
    parser.add_argument(
        "--max_duration", type=float, default=30.0, help="seconds; longer clips are dropped (30)"
    )
    parser.add_argument(
        "--audio_root", type=Path, help="folder of relative audio paths (otherwise the manifest's own)"
    )
    parser.add_argument(
        "--require",
        help="texts that a row must have, separated by commas (default: transcript and translation, as far as the "
        "manifest has these columns)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="the manifest's name of one of our columns; may be repeated",
    )
    parser.add_argument(
        KEEP,
        action="append",
        default=[],
        metavar="WORD",
        help="this word of nan, None, N/A, null and the like is a real word here: texts that are only this word stay",
    )
    _add_sound_arguments(parser)
    parser.add_argument(
        "--force", action="store_true", help="overwrite an output that this command has not made"
    )
    _add_korean_arguments(parser)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox preprocess", description=(__doc__ or "").split("\n\n")[1])
    add_arguments(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Clean, write, print the summary; 0 when something is left."""
    from training.base.progress import progress_bar

    arguments = parser().parse_args(argv)
    with progress_bar(total=None, unit="clip", desc="checked") as bar:

        def progress(rows: int, total: int) -> None:
            bar.total = total
            bar.update(rows)

        total, ledger = preprocess(
            arguments.input,
            arguments.output,
            min_duration=arguments.min_duration,
            max_duration=arguments.max_duration,
            audio_root=arguments.audio_root,
            require=[name.strip() for name in arguments.require.split(",")] if arguments.require else None,
            columns=column_names(arguments.column),
            check_files=not arguments.skip_audio_check,
            decode=arguments.decode,
            workers=arguments.workers,
            force=arguments.force,
            korean=_korean(arguments),
            keep_markers=checked(arguments.keep_text_marker, KEEP),
            report=lambda text: print(text, flush=True),
            progress=progress,
        )
    print(f"{arguments.output}: {total - len(ledger):,} of {total:,} utterances kept")
    print(ledger.summary())
    if len(ledger):
        print(f"each of them with its reason: {ledger_path(arguments.output)}")
    return 0


def _korean(arguments: argparse.Namespace) -> KoreanRules | None:
    if arguments.korean:
        return KoreanRules(dual=arguments.dual, numerals=arguments.numerals)
    for name, given in (("--dual", arguments.dual), ("--numerals", arguments.numerals == "read")):
        if given:
            raise UserError(f"{name}: is for Korean transcripts; say --korean as well")
    return None
