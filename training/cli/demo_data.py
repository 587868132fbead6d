"""Synthesise a demo corpus: polyvox demo-data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.base.files import writable
from training.base.progress import progress_bar
from training.cli.command_line import Parser
from training.synthetic.demo import CORPORA, DEFAULT_CORPUS, make_demo

FIRST_LINE = 3.0
"""Seconds after which is said how long it takes, where there is no bar."""


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
    minutes = options.minutes if options.minutes is not None else CORPORA[options.corpus].minutes
    print(
        f"{output}: espeak-ng makes about {minutes:g} minutes of speech, and some of unheard voices",
        flush=True,
    )
    with progress_bar(total=None, unit="video", desc="speaking", first=FIRST_LINE) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = make_demo(
            output,
            corpus=options.corpus,
            minutes=minutes,
            seed=options.seed,
            force=options.force,
            progress=progress,
        )
    print(summary)
    return 0
