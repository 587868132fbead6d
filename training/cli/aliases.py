"""Options of commands that have several names."""

from __future__ import annotations

import argparse
from typing import Any


class OneValue(argparse.Action):
    """Stores the value of an option with several names; another value under another of them is a mistake.

    Of two values under the same name the last one counts, as with every option.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("_said", {})
        name = given.setdefault(self.dest, option_string)
        earlier = getattr(namespace, self.dest)
        if name != option_string and earlier != values:
            raise argparse.ArgumentError(
                self, f"{name} {earlier} and {option_string} {values} name one option; leave out one of them"
            )
        setattr(namespace, self.dest, values)
