"""``polyvox completion``: a script with which the Tab key of a shell completes commands and options.

    polyvox completion bash > ~/.local/share/bash-completion/completions/polyvox
    polyvox completion zsh > "${fpath[1]}/_polyvox"
    polyvox completion tcsh >> ~/.tcshrc

The script is made by shtab from the parsers of the commands. Make it anew after an update.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from training.base.errors import UserError
from training.cli.command_line import Parser

SHELLS = ("bash", "zsh", "tcsh")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("shell", choices=SHELLS)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script."""
    args = parser().parse_args(argv)
    try:
        import shtab
    except ImportError as error:
        raise UserError("polyvox completion needs shtab: pip install shtab") from error
    print(shtab.complete(whole(), args.shell))
    return 0


def whole() -> argparse.ArgumentParser:
    """One parser with those of all commands in it; options that take a path complete files."""
    from training.cli import COMMANDS

    result = argparse.ArgumentParser(prog="polyvox")
    result.add_argument("--version", action="store_true", help="the version")
    commands = result.add_subparsers(dest="command")
    for name, (module, text) in COMMANDS.items():
        made = commands.add_parser(name, help=text, add_help=False)
        own = import_module(module).parser()
        made.__dict__.update({key: value for key, value in own.__dict__.items() if key != "prog"})
    _complete_files(result)
    return result


def _complete_files(parser: argparse.ArgumentParser) -> None:
    from pathlib import Path

    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
