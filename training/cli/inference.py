"""``training/scripts/inference.py``: text and words with start, end and confidence of recordings of any length, as JSON.

The work is that of ``polyvox transcribe``, whose other options are taken as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.cli import transcribe
from training.cli.aliases import OneValue
from training.cli.command_line import Parser


def parser() -> argparse.ArgumentParser:
    """The command line, without the options that are handed on."""
    result = Parser(
        prog="inference.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--checkpoint",
        "--model",
        "--model_dir",
        "--model_path",
        dest="checkpoint",
        action=OneValue,
        type=Path,
        required=True,
        help="a trained model's folder",
    )
    result.add_argument(
        "--audio", type=Path, nargs="+", required=True, help="audio files, or folders of them"
    )
    result.add_argument("--format", choices=transcribe.FORMATS, default="words", help="default: words")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The same as ``polyvox transcribe --format words``."""
    args, others = parser().parse_known_args(argv)
    audio = [f"--audio_file={path}" for path in args.audio]
    return transcribe.main([*audio, f"--model={args.checkpoint}", f"--format={args.format}", *others])
