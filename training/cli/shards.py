"""``polyvox shards``: a manifest as WebDataset shards, and what is in shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.base.errors import UserError
from training.base.system_files import listed
from training.cli.command_line import Parser
from training.data import missing
from training.data.column_names import TEXTS
from training.data.columns import COMMAND, column_names
from training.data.ledger import DropLedger
from training.data.sources.shards.archive import DAMAGE
from training.data.sources.shards.index import (
    Index,
    disagreements,
    estimate,
    read_index,
    read_metadata,
    refused_of,
)
from training.data.sources.shards.keys import FIRST_DOT, RULES

DAMAGED = 1
"""Exit status of ``stats`` where archives are damaged."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox shards", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write a manifest's utterances as shards")
    write.add_argument("--manifest", type=Path, required=True, help="manifest: TSV, CSV, JSONL or Parquet")
    write.add_argument(
        "--audio_root", type=Path, help="folder of relative audio paths (otherwise the manifest's own)"
    )
    write.add_argument(
        "--output", type=Path, required=True, help="folder of the shards, such as shards/train"
    )
    write.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="such as transcript=text; may be repeated",
    )
    write.add_argument("--samples_per_shard", type=int, default=1000, help="samples in one shard (1000)")
    write.add_argument("--overwrite", action="store_true", help="replace the shards that are there")
    stats = commands.add_parser("stats", help="samples, hours and domains of each split")
    stats.add_argument("folder", type=Path, help="a folder of shards, or one whose folders hold shards")
    stats.add_argument(
        "--samples_per_shard",
        type=int,
        help="only estimate: as metadata.json says, else so many samples in each shard",
    )
    stats.add_argument(
        "--keys",
        choices=RULES,
        default=FIRST_DOT,
        help="where a member's key ends: data.shards.keys (first_dot)",
    )
    stats.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="name of a field in the samples' JSON: data.columns; may come several times",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two. Exit status 1: ``stats`` found damaged archives."""
    args = parser().parse_args(argv)
    if args.samples_per_shard is not None and args.samples_per_shard < 1:
        raise UserError(f"--samples_per_shard {args.samples_per_shard}: give at least 1")
    return _write(args) if args.command == "write" else _stats(args)


def _write(args: argparse.Namespace) -> int:
    from training.data.manifest import load_manifest
    from training.data.sources.shards.write import write_shards

    manifest = load_manifest(
        args.manifest,
        audio_root=args.audio_root,
        columns=column_names(args.column),
        need_text=True,
        option=COMMAND,
    )
    written = write_shards(
        manifest, args.output, samples_per_shard=args.samples_per_shard, overwrite=args.overwrite
    )
    for line in missing.warnings(
        {name: manifest.column(name) for name in TEXTS if name in manifest.column_names}
    ):
        print(line, file=sys.stderr)
    if len(written.dropped):
        print(f"{len(written.dropped):,} rows are left out")
    if len(written.dropped) or written.dropped.notes:
        print(written.dropped.summary())
    total = written.total
    shards = f"{total.samples:,} samples, {total.seconds / 3600:.3f} h, in {len(written.shards):,} shards"
    print(f"written: {args.output}: {shards}")
    return 0


def _stats(args: argparse.Namespace) -> int:
    damaged: list[str] = []
    for folder in _splits(args.folder):
        if args.samples_per_shard is not None:
            print(
                f"{folder.name}: about {estimate(folder, args.samples_per_shard):,} samples (no shard was opened)"
            )
        else:
            index = read_index(folder, column_names(args.column), args.keys)
            print("\n".join(_described(index)))
            damaged += _damaged(index)
    for told in damaged:
        print(f"damaged: {told}; copy it again, or write it anew", file=sys.stderr)
    return DAMAGED if damaged else 0


def _damaged(index: Index) -> list[str]:
    """The archives that have lost bytes, each with the first place. A sample that only lacks a text is no damage."""
    first: dict[str, str] = {}
    for drop in index.refused:
        if drop.reason in DAMAGE:
            first.setdefault(drop.id.partition("/")[0], drop.detail)
    return [f"{index.folder / shard}: {detail}" for shard, detail in first.items()]


def _splits(folder: Path) -> list[Path]:
    """The folder itself, or those in it that hold shards."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if any(listed(folder, "*.tar")):
        return [folder]
    found = sorted({path.parent for path in listed(folder, "[!.]*/*.tar")})
    if not found:
        raise UserError(f"{folder}: neither it nor a folder in it holds shards (*.tar)")
    return found


def _described(index: Index) -> list[str]:
    metadata = read_metadata(index.folder)
    seconds = np.array(index.table.column("duration").to_pylist(), dtype=float)
    held = index.samples()
    lines = [
        f"{index.folder.name}: {_amount(seconds)}, {len(held):,} shards, {_refused(refused_of(index, metadata))}"
    ]
    there = "domain" in index.table.column_names
    own = index.table.column("domain").to_pylist() if there else [None] * len(seconds)
    domains = np.array([name or metadata.domain or "" for name in own])
    for name in sorted(set(domains)):
        lines.append(f"  {name or '(no domain)'}: {_amount(seconds[domains == name])}")
    texts = {name: index.table.column(name).to_pylist() for name in TEXTS if name in index.table.column_names}
    notes = (*disagreements(index, metadata), *index.notes, *missing.warnings(texts))
    return [*lines, *(f"  {note}" for note in notes)]


def _amount(seconds: np.ndarray) -> str:
    return f"{len(seconds):,} samples, {seconds.sum() / 3600:.3f} h"


def _refused(ledger: DropLedger) -> str:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in ledger.counts().items() if count)
    return f"{len(ledger):,} refused ({counts})" if counts else "none refused"
