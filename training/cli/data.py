"""``polyvox data``: what a registry holds, how versions differ, and how to get them out again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.terminal import show_table
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.registry import DEFAULT

if TYPE_CHECKING:
    from training.registry.store import Registry

_SHOWN = 10


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox data", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", add_help=False, help="check, split and store the recordings of a table")
    stats = _command(commands, "stats", "hours, files, speakers per split, and what the splits share")
    stats.add_argument("--version", help="default: all of them")
    listing = _command(commands, "list", "versions, or runs")
    listing.add_argument("--runs", action="store_true", help="training runs instead of versions")
    diff = _command(commands, "diff", "what changed from one version to another")
    diff.add_argument("before")
    diff.add_argument("after")
    export = _command(commands, "export", "a version as manifests")
    export.add_argument("--version", required=True)
    export.add_argument(
        "--output",
        "--output_dir",
        dest="output_dir",
        action=OneValue,
        type=Path,
        required=True,
        help="folder of train, dev and test",
    )
    export.add_argument("--format", choices=("csv", "tsv", "jsonl"), default="csv")
    export.add_argument("--force", action="store_true", help="overwrite files that this command has not made")
    record = _command(commands, "record", "store the figures of a run's folder (after a locked registry)")
    record.add_argument("run", type=Path, nargs="+")
    _command(commands, "upgrade", "bring the registry of an older polyvox to this one's schema")
    for command in (stats, listing, diff):
        command.add_argument("--json", action="store_true", help="as JSON")
    return result


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.add_argument(
        "--registry",
        "--database",
        action=OneValue,
        default=DEFAULT,
        help=f"SQLite file or SQLAlchemy URL ({DEFAULT})",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    import sys

    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["prepare"]:
        from training.cli import prepare_data

        return prepare_data.main(arguments[1:])
    args = parser().parse_args(arguments)
    from training.registry.store import open_registry

    actions: dict[str, Callable[[Registry, argparse.Namespace], None]] = {
        "stats": _stats,
        "list": _list,
        "diff": _diff,
        "export": _export,
        "record": _record,
        "upgrade": lambda registry, args: print(f"{registry.name}: schema is this library's"),
    }
    _require_there(args.registry)
    with open_registry(args.registry, create=args.command == "upgrade") as registry:
        actions[args.command](registry, args)
    return 0


def _require_there(where: str) -> None:
    """`upgrade` must not make a registry out of a mistyped name."""
    if "://" not in where and not Path(where).is_file():
        raise UserError(f"{where}: no such registry; make it with polyvox data prepare")


def _stats(registry: Registry, args: argparse.Namespace) -> None:
    from training.data.prepare.split_report import overlap_lines, table
    from training.registry.versions import listed
    from training.registry.views import statistics

    names = [args.version] if args.version else [version["name"] for version in listed(registry)]
    found = [statistics(registry, name) for name in names]
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for figures in found:
        print(f"{registry.name}: version {figures['version']}")
        print("\n".join([table(figures["parts"]), *overlap_lines(figures["overlap"])]))
    if not found:
        print(f"{registry.name}: no versions")


def _list(registry: Registry, args: argparse.Namespace) -> None:
    from training.registry.recording import runs
    from training.registry.versions import listed

    if args.runs:
        _show(runs(registry), args.json)
        return
    rows = listed(registry)
    hours = [{"hours": round(row.pop("seconds") / 3600, 3)} for row in rows]
    _show([{**row, **more} for row, more in zip(rows, hours, strict=True)], args.json)


def _show(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2, default=str))
    elif not rows:
        print("none")
    else:
        names = list(rows[0])
        show_table(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: Any) -> str:
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _diff(registry: Registry, args: argparse.Namespace) -> None:
    from training.registry.versions import diff

    found = diff(registry, args.before, args.after)
    if args.json:
        print(json.dumps(vars(found), ensure_ascii=False, indent=2))
        return
    print(f"{found.same:,} utterances are the same")
    _print_some("added", found.added)
    _print_some("removed", found.removed)
    _print_some("in another split", [f"{name}: {a} → {b}" for name, a, b in found.moved])
    _print_some("changed", [f"{n}: {a!r} → {b!r}" for n, a, b in found.changed])


def _print_some(what: str, names: Sequence[str]) -> None:
    print(f"{len(names):,} {what}")
    for name in names[:_SHOWN]:
        print(f"  {name}")
    if len(names) > _SHOWN:
        print(f"  … and {len(names) - _SHOWN:,} more (--json lists all)")


def _export(registry: Registry, args: argparse.Namespace) -> None:
    from training.registry.exporting import export

    for path, count in export(registry, args.version, args.output_dir, args.format, force=args.force).items():
        print(f"{path}: {count:,} utterances")


def _record(registry: Registry, args: argparse.Namespace) -> None:
    from training.registry.exporting import record_folder

    for folder in args.run:
        print(f"{folder}: {record_folder(registry, folder)} figures stored")
