"""``polyvox publish``: a finished run, or an exported folder, to the Hugging Face Hub, private unless ``--public``, with a
model card.

The token is that of the variable HF_TOKEN or of ``hf auth login``; it is no option, because commands are seen and kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.base.errors import UserError
from training.cli.aliases import OneValue
from training.cli.command_line import Parser

if TYPE_CHECKING:
    from training.config.schema import Config
    from training.publishing.contents import Parcel
    from training.publishing.evidence import Evidence

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--model",
        "--model_dir",
        dest="model_dir",
        action=OneValue,
        type=Path,
        required=True,
        help="a finished run's folder, or one that polyvox export wrote",
    )
    result.add_argument(
        "--repo_id", required=True, metavar="OWNER/NAME", help="the repository, made if need be"
    )
    result.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    result.add_argument(
        "--licence",
        "--license",
        dest="licence",
        action=OneValue,
        metavar="ID",
        help="the Hub's name of the model's licence, such as apache-2.0 (default: not stated)",
    )
    result.add_argument(
        "--results", type=Path, help="folder of the evaluations (default: results beside the run's folder)"
    )
    result.add_argument(
        "--new_card", action="store_true", help="write a card although the run's folder has a README.md"
    )
    result.add_argument(
        "--dry_run", action="store_true", help="show what would go and the card; nothing is sent or written"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Show what goes, and send it; nothing of this machine is changed."""
    args = parser().parse_args(argv)
    from training.publishing.upload import check_access, check_repo_id, upload
    from training.runtime.folder import is_exported

    check_repo_id(args.repo_id)
    check_licence(args)
    if not args.dry_run:
        check_access()
    parcel, card = prepare(args)
    show(parcel, args.dry_run)
    if args.dry_run:
        print(f"\nREADME.md:\n\n{card}")
        return 0
    kind = "export" if is_exported(args.model_dir) else "run"
    done = upload(
        parcel.items,
        args.repo_id,
        public=args.public,
        message=f"Polyvox {kind} {args.model_dir.resolve().name}",
    )
    seen = "private" if done.private else "public"
    print(f"{done.url} ({seen}){'' if done.changed else ': all of it was there already'}")
    if args.public and done.private:
        print(
            "--public: the repository was there and stays private; change that on its page", file=sys.stderr
        )
    return 0


def check_licence(args: argparse.Namespace) -> None:
    """`UserError` for a licence that the Hub could not store, or that a card of the user's own would not show."""
    if args.licence is None:
        return
    if not LICENCE.fullmatch(args.licence):
        raise UserError(
            f"--licence {args.licence}: give the Hub's name for it, such as apache-2.0 or cc-by-4.0"
        )
    if own_card(args) is not None:
        raise UserError(
            f"--licence: {args.model_dir / 'README.md'} is published as it is; write the licence there, or say --new_card"
        )


def own_card(args: argparse.Namespace) -> Path | None:
    """The card that the user wrote, if it is to be used."""
    path = args.model_dir / "README.md"
    return path if path.is_file() and not args.new_card else None


def prepare(args: argparse.Namespace) -> tuple[Parcel, str]:
    """Everything that goes, the card as the first file; and the card."""
    from training.runtime.folder import is_exported

    return _prepare_exported(args) if is_exported(args.model_dir) else _prepare_run(args)


def _prepare_exported(args: argparse.Namespace) -> tuple[Parcel, str]:
    from training.publishing.contents import CARD, Item, check_secrets
    from training.publishing.exported import card_of, pack_exported
    from training.runtime.folder import NOT_CHECKED

    if args.results is not None:
        raise UserError("--results: an exported folder is published with its comparison; leave it out")
    parcel, found = pack_exported(args.model_dir)
    if found.checked == NOT_CHECKED:
        print("warning: nobody has compared this folder with its original; the card says so", file=sys.stderr)
    own = own_card(args)
    card = card_of(found, args.repo_id, args.licence, written_card(own) if own else None)
    parcel.items.insert(0, Item(CARD, card.encode()))
    check_secrets(parcel)
    return parcel, card


def _prepare_run(args: argparse.Namespace) -> tuple[Parcel, str]:
    from training.config.load import RESOLVED_NAME, load_config
    from training.publishing.contents import CARD, Item, check_finished, check_secrets, pack
    from training.publishing.evidence import collect, results_folder

    check_finished(args.model_dir)
    config = load_config(args.model_dir / RESOLVED_NAME)
    evidence = collect(args.model_dir, config, results_folder(args.results, args.model_dir))
    warn(evidence)
    parcel = pack(args.model_dir, evidence, config.output.log_file)
    own = own_card(args)
    card = written_card(own) if own else new_card(args, config, evidence)
    parcel.items.insert(0, Item(CARD, own or card.encode()))
    check_secrets(parcel)
    return parcel, card


def written_card(path: Path) -> str:
    """The text of the user's own card; `UserError` where it is none that the Hub could show."""
    try:
        return path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8, or say --new_card to have a card written"
        ) from error


def new_card(args: argparse.Namespace, config: Config, evidence: Evidence) -> str:
    """The card, written from the run and its evaluations without this machine's paths."""
    from dataclasses import replace

    from training.engine.folder import RESULTS
    from training.evaluation.stored import read_json
    from training.publishing.card import write_card
    from training.publishing.facts import Facts, hub_bases
    from training.publishing.private import without_paths

    shown: dict[str, str] = {}
    scored = tuple(replace(one, report=without_paths(one.report, shown)) for one in evidence.scored)
    compared = tuple((path, without_paths(found, shown)) for path, found in evidence.comparisons)
    facts = Facts(
        repo_id=args.repo_id,
        config=without_paths(config.as_dict(), shown),
        results=without_paths(read_json(args.model_dir / RESULTS), shown),
        architectures=tuple(read_json(args.model_dir / "config.json").get("architectures") or ()),
        hub_bases=hub_bases(config),
        evidence=replace(evidence, scored=scored, comparisons=compared),
        licence=args.licence,
    )
    return write_card(facts)


def warn(evidence: Evidence) -> None:
    """Say what of the scores may not be this model's, or that there are none."""
    if not evidence.scored:
        print("warning: no evaluation of this run is there, so the card has no scores", file=sys.stderr)
    for path in evidence.older:
        print(f"warning: {path} is older than the weights; evaluate anew if they changed", file=sys.stderr)


def show(parcel: Parcel, all_of_it: bool) -> None:
    """The files in a line; with ``all_of_it`` each of them, what stays here, and the paths that are cut down."""
    total = sum(item.size for item in parcel.items)
    print(f"{len(parcel.items)} files, {readable(total)}")
    if not all_of_it:
        return
    for item in parcel.items:
        print(f"  {item.name:40} {readable(item.size):>12}")
    for title, lines in (("stays here", parcel.left_out), ("paths of this machine", parcel.shortened)):
        if lines:
            print(f"{title}:")
        for what, told in lines.items():
            print(f"  {what} → {told}" if lines is parcel.shortened else f"  {what}: {told}")


def readable(size: int) -> str:
    """``1.25 MB``, ``0.8 kB``."""
    return f"{size / 1e6:,.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
