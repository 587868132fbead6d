"""``polyvox timestamps``: when each word of a transcript was spoken, from a Whisper or a CTC model.

The words are the reference's own, never the recogniser's. Utterances with a high word error rate, and those in which a word
gets no time, are listed in ``dropped.tsv``. After an interruption the same command continues.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.files import writable
from training.base.language_names import language_code
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.cli.options import count


def share(text: str) -> float:
    """A number from 0 on."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0 (got {text})")
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox timestamps", description=__doc__)
    add = result.add_argument
    add(
        "--manifest",
        "--data",
        dest="data",
        action=OneValue,
        type=Path,
        required=True,
        help="a manifest, or a folder with LibriSpeech/ in it",
    )
    add("--split", required=True, help="which rows: of the column split, or LibriSpeech's folder")
    add("--output", type=Path, required=True, help="OUTPUT/SPLIT/timestamps_manifest.json is written")
    add(
        "--model",
        required=True,
        help="tiny, base, small, … (openai/whisper-…), a hub id, or a folder: Whisper or CTC",
    )
    add("--fast", action="store_true", help="read the sounds of a batch in threads")
    add("--parallel", type=count, default=1, metavar="N", help="processes, each with the model (1)")
    add(
        "--max-wer",
        "--max_wer",
        dest="max_wer",
        type=share,
        default=0.1,
        help="drop utterances on which the word error rate of the model is above this share (0.1)",
    )
    add(
        "--use-native",
        "--use_native",
        dest="native",
        action="store_true",
        help="Whisper as published: a clip at a time, in 30 s of context; slower",
    )
    add(
        "--language",
        type=language_code,
        default=None,
        help="of rows that name none, a code or a name (default: the model's)",
    )
    add("--device", default=None, help="cpu, cuda, … (default: the GPU where there is one)")
    add(
        "--batch-seconds",
        "--batch_seconds",
        dest="batch_seconds",
        type=float,
        default=60.0,
        help="of sound (60)",
    )
    add("--force", action="store_true", help="begin anew where the output was begun with other settings")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest and its ledger, print what was kept."""
    args = parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.split in ("", "..") or Path(args.split).name != args.split:
        raise UserError(f"--split {args.split}: the name of a split, not a path")
    if args.batch_seconds <= 0:
        raise UserError(f"--batch-seconds {args.batch_seconds:g}: more than 0")
    writable(args.output, "--output")
    from training.alignment.generate import generate
    from training.alignment.rows import load_rows

    rows = load_rows(args.data, args.split)
    with _bar(len(rows)) as bar:
        made = generate(rows, args.output, _settings(args), bar.update)
    print(made.ledger.summary())
    print(f"written: {made.path}: {made.kept:,} of {len(rows):,} utterances")
    if not made.kept:
        print("error: no utterance has word times; the ledger says why", file=sys.stderr)
    return 0 if made.kept else 1


def _settings(args: argparse.Namespace) -> Any:
    from training.alignment.generate import Settings

    names = (
        "model",
        "split",
        "max_wer",
        "batch_seconds",
        "parallel",
        "device",
        "native",
        "fast",
        "language",
        "force",
    )
    return Settings(**{name: getattr(args, name) for name in names})


def _bar(total: int) -> Any:
    from training.base.progress import progress_bar

    return progress_bar(total=total, unit="utterance", desc="timestamps")
