"""``polyvox download``: a public corpus to a folder, resumable and checked.

An archive that already lies in the folder is used in place of a download.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.cli.command_line import Parser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from training.data.download.librispeech import CHECKSUMS, MIRRORS

    result = Parser(prog="polyvox download", description=__doc__)
    corpora = result.add_subparsers(dest="corpus", required=True)
    libri = corpora.add_parser("librispeech", help="read English, 16 kHz FLAC with transcripts")
    libri.add_argument("--output", type=Path, default=Path("data"), help="folder of LibriSpeech/ (data)")
    libri.add_argument(
        "--splits", nargs="+", required=True, metavar="SPLIT", help=f"one or more of {', '.join(CHECKSUMS)}"
    )
    libri.add_argument(
        "--mirror",
        action="append",
        metavar="URL",
        help=f"folder of the archives on a server; repeat it for others, tried in turn (default: {', '.join(MIRRORS)})",
    )
    libri.add_argument(
        "--checksums",
        type=Path,
        metavar="FILE",
        help="MD5 sums as md5sum writes them, in place of the published ones (for other archives of this layout)",
    )
    libri.add_argument(
        "--keep_archives",
        "--keep-archives",
        action="store_true",
        help="keep what was loaded, as SPLIT.tar.gz",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Load what is asked for; progress goes to stderr, the folders to stdout."""
    from training.data.download.librispeech import CHECKSUMS, MIRRORS, download_librispeech, read_checksums

    args = parser().parse_args(argv)
    folders = download_librispeech(
        args.output,
        args.splits,
        mirrors=args.mirror or MIRRORS,
        checksums=CHECKSUMS if args.checksums is None else read_checksums(args.checksums),
        keep_archives=args.keep_archives,
        report=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print("\n".join(map(str, folders)))
    return 0
