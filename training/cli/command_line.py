"""The parser of every command: each option with ``_`` and with ``-``, and a suggestion for what is misspelt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from training.base.errors import USER_ERROR
from training.base.nearest import did_you_mean
from training.cli.guide_paths import in_their_place


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose mistakes are one line: what is wrong, what was probably meant, where the list is.

    Options are never abbreviated; ``--dry-run`` is ``--dry_run``. Parsers of subcommands are of this class too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("description"):  # a module's own text, whose marks of code are for documents
            kwargs["description"] = kwargs["description"].replace("``", "")
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Print the mistake and leave with status 2."""
        print(f"error: {self.prog}: {message} ({self.prog} --help lists the options)", file=sys.stderr)
        sys.exit(USER_ERROR)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse` does, after the spelling of the options was made the declared one."""
        given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._spelt(given), namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse` does; an unknown option is named first, with the one that is most like it."""
        given = list(sys.argv[1:] if args is None else args)
        self._check(given)
        found, others = self.parse_known_args(self._spelt(given), namespace)
        if others:
            self._refuse(others)
        return found

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse` does; an unknown option is named first, with the one that is most like it."""
        given = list(sys.argv[1:] if args is None else args)
        self._check(given)
        found, others = self.parse_known_intermixed_args(self._spelt(given), namespace)
        if others:
            self._refuse(others)
        return found

    def _refuse(self, others: Sequence[str]) -> NoReturn:
        self.error(f"{' '.join(others)}: not understood here")

    def _check(self, given: Sequence[str]) -> None:
        known = set(self._options())
        if any(word in ("-h", "--help") for word in given):
            return
        for word in _before_dashes(given):
            name = word.partition("=")[0]
            if name.startswith("--") and not {name, *_other_spellings(name)} & known:
                self.error(f"unknown option {name}{_suggested(name, known)}")

    def _options(self) -> Iterator[str]:
        """All options of this parser and of its subcommands."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in dict.fromkeys(action.choices.values()):
                    yield from parser._options()

    def _spelt(self, given: Sequence[str]) -> list[str]:
        spelt, dashes = [], False
        for word in in_their_place(given):
            dashes = dashes or word == "--"
            name, equals, value = word.partition("=")
            known = self._option_string_actions
            if not dashes and name.startswith("--") and name not in known:
                name = next((other for other in _other_spellings(name) if other in known), name)
                word = f"{name}{equals}{value}"
            spelt.append(word)
        return spelt

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As `argparse` does, with a suggestion."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(
            action,
            f"no choice is called {value!r}{did_you_mean(str(value), choices)} (there are {', '.join(choices)})",
        )


def _before_dashes(given: Sequence[str]) -> Sequence[str]:
    """What stands before ``--``, behind which everything is a value."""
    return given[: given.index("--")] if "--" in given else given


def _other_spellings(name: str) -> tuple[str, str]:
    bare = name[2:]
    return f"--{bare.replace('-', '_')}", f"--{bare.replace('_', '-')}"


def _suggested(name: str, known: set[str]) -> str:
    """The most like option; of two spellings of one option that with ``_``."""
    named = sorted({f"--{option[2:].replace('-', '_')}" for option in known if option.startswith("--")})
    return did_you_mean(_other_spellings(name)[0], named)
