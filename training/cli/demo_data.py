"""Synthesise a demo corpus: polyvox demo-data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.base.files import writable
from training.cli.command_line import Parser
from training.synthetic.demo import CORPORA, DEFAULT_CORPUS, make_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    folders = ", ".join(f"data/{corpus.folder}" for corpus in CORPORA.values())
    lengths = ", ".join(f"{corpus.minutes:g}" for corpus in CORPORA.values())
    parser.add_argument(
        "--corpus", choices=tuple(CORPORA), default=DEFAULT_CORPUS, help="what to make (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, help=f"folder to write (by corpus: {folders})")
    parser.add_argument("--minutes", type=float, help=f"speech to make (by corpus: {lengths})")
    parser.add_argument(
        "--seed", type=int, default=42, help="equal seeds give equal bytes (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace the corpus that is in the folder")


def _show(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rspeaking: {done}/{total} videos", end=end, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox demo-data", description="Synthesise a demo corpus.")
    add_arguments(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Make the corpus, print what is in it."""
    options = parser().parse_args(argv)
    output = options.output or Path("data") / CORPORA[options.corpus].folder
    if not output.exists():
        writable(output.parent, "--output")
    summary = make_demo(
        output,
        corpus=options.corpus,
        minutes=options.minutes,
        seed=options.seed,
        force=options.force,
        progress=_show if sys.stderr.isatty() else None,
    )
    print(summary)
    return 0
