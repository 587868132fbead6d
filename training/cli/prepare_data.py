"""``polyvox data prepare``: check the recordings of a table, split them, store them as a frozen version.

The table (CSV, TSV, JSONL, Parquet) needs a path and a transcript per row: ``file_path,transcript,duration,split,
speaker_id``. Rows that cannot be used are listed with their reasons and stop nothing. Importing again adds nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.registry import DEFAULT

if TYPE_CHECKING:
    from training.registry.prepare import Prepared, Settings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description = (__doc__ or "").split("\n\n")[1]
    result = Parser(prog="polyvox data prepare", description=description)
    add = result.add_argument
    add(
        "--manifest",
        "--csv_path",
        dest="csv_path",
        action=OneValue,
        type=Path,
        required=True,
        help="the table: CSV, TSV, JSONL or Parquet",
    )
    add(
        "--registry",
        "--database",
        dest="database",
        action=OneValue,
        default=DEFAULT,
        help=f"SQLite file or SQLAlchemy URL ({DEFAULT})",
    )
    add("--version", help="name of the version (default: the next free one: v1, v2, …)")
    add("--extend", metavar="VERSION", help="new version = the rows and splits of this one + the table's")
    add("--output_dir", type=Path, help="write 16-bit mono copies here of files that are costly to read")
    add("--sample_rate", type=int, default=16_000, help="of these copies, at most (16000)")
    add(
        "--validate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode every file to its end: silence, clipping (default); --no-validate reads headers only",
    )
    add("--dry_run", action="store_true", help="check and report; store and write nothing")
    _add_splitting(result)
    _add_rules(result)
    add("--audio_root", type=Path, help="folder that relative audio paths start from")
    add("--column", action="append", default=[], metavar="OURS=THEIRS", help="such as transcript=sentence")
    add(
        "--keep_text_marker",
        action="append",
        default=[],
        metavar="WORD",
        help="this word of nan, None, N/A, null and the like is a real word here: texts that are only this word stay",
    )
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads that read files")
    return result


def _add_splitting(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("--auto_split", action="store_true", help="split the rows whose column 'split' is empty or missing")
    add(
        "--split_strategy",
        choices=("speaker", "random", "text"),
        default="speaker",
        help="what is never torn apart: speakers (default), nothing, equal sentences",
    )
    add("--ratios", default="80/10/10", help="train/dev/test in per cent of the duration (80/10/10)")
    add(
        "--dev_from_train",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="take this share of the training rows as dev where the table has no dev rows",
    )
    add("--seed", type=int, default=42, help="another seed, another split (42)")


def _add_rules(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("--min_duration", type=float, default=0.1, help="seconds; shorter is dropped (0.1)")
    add("--max_duration", type=float, default=30.0, help="seconds; longer is dropped, never cut (30)")
    add("--min_rate", type=int, default=8000, help="samples a second; lower is dropped (8000)")
    add("--silence_db", type=float, default=-60.0, help="dB of full scale; nowhere louder is dropped (-60)")
    add(
        "--max_clipped",
        type=float,
        default=0.1,
        help="share of clipped samples; more is dropped (0.1)",
    )
    add(
        "--frames_per_second",
        type=float,
        default=50.0,
        help="of the encoder, for the check that CTC can align the transcript (50)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0: stored, or there already; 2: the table or the database is at fault."""
    args = parser().parse_args(argv)
    from training.base.progress import progress_bar
    from training.registry.prepare import prepare, write_ledgers

    settings = _settings(args)
    with progress_bar(total=None, unit="row", desc="checked") as bar:

        def progress(rows: int, total: int) -> None:
            bar.total = total
            bar.update(rows)

        done = prepare(settings, progress)
    print(report(settings, done))
    if done.version is not None and (len(done.ledger) or len(done.imported.notes)):
        paths = write_ledgers(settings, done.version.name, done.ledger, done.imported.notes)
        print(f"each of them with its reason: {', '.join(map(str, paths))}")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from training.data.columns import column_names
    from training.data.missing import KEEP, checked
    from training.data.prepare.split import parse_ratios
    from training.registry.checks import Rules
    from training.registry.importing import Conversion
    from training.registry.prepare import Settings

    if not 0 <= args.dev_from_train < 1:
        raise UserError(f"--dev_from_train {args.dev_from_train:g}: a share from 0 to 1")
    copies = Conversion(folder=args.output_dir, sample_rate=args.sample_rate) if args.output_dir else None
    return Settings(
        table=args.csv_path,
        database=args.database,
        version=args.version,
        extend=args.extend,
        columns=column_names(args.column),
        audio_root=args.audio_root,
        rules=Rules(
            min_seconds=args.min_duration,
            max_seconds=args.max_duration,
            min_rate=args.min_rate,
            silence_db=args.silence_db,
            max_clipped=args.max_clipped,
            frames_per_second=args.frames_per_second,
            decode=args.validate,
            keep_markers=checked(args.keep_text_marker, KEEP),
        ),
        conversion=copies,
        auto_split=args.auto_split,
        strategy=args.split_strategy,
        ratios=parse_ratios(args.ratios),
        dev_share=args.dev_from_train,
        seed=args.seed,
        dry_run=args.dry_run,
        workers=args.workers,
    )


def report(settings: Settings, done: Prepared) -> str:
    """What happened, for the screen."""
    from training.data.prepare.split_report import overlap_lines, table

    kept, imported = done.total - len(done.ledger), done.imported
    lines = [done.note] if done.note else []
    lines.append(f"{settings.table}: {kept:,} of {done.total:,} rows can be used")
    lines += [done.ledger.summary()] if len(done.ledger) else []
    if line := imported.marks.line("as words"):
        lines.append(line)
    if len(imported.notes):
        lines.append(f"kept, and worth a look:\n{imported.notes.summary()}")
    lines += [table(done.described["parts"]), *overlap_lines(done.described["overlap"])]
    if done.version is None:
        return "\n".join([*lines, "dry run: nothing was stored"])
    added = f"{imported.added_files:,} recordings and {imported.added_transcripts:,} transcripts added"
    copies = f", {imported.converted:,} converted" if imported.converted else ""
    lines.append(f"{settings.database}: {added}{copies}")
    lines += _version_lines(settings, done.version)
    if not done.described["parts"].get("dev", {}).get("utterances"):
        lines.append(
            "no dev rows, which training needs: --dev_from_train 0.1 takes some of the training rows"
        )
    return "\n".join(lines)


def _version_lines(settings: Settings, version: Any) -> list[str]:
    what = "is frozen now" if version.created else "holds the same already"
    return [
        f"version {version.name} {what}; to train on it: data.registry={settings.database} data.version={version.name}"
    ]
