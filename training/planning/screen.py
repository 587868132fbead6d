"""Titles and rows of the dry run: plain text, with colours where they are printed on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from training.base.terminal import coloured

COLOURS = {"warning": "yellow", "not checked": "yellow", "not tried": "yellow"}
"""Names of rows that are coloured, with the colour of the name."""


class Rows:
    """Writes titles and rows.

    Args:
        report: takes each line. Only ``print`` gets colours: other takers keep or compare the text.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.say, self.printed = report, report is print

    def title(self, text: str) -> None:
        """The title of a section, behind an empty line."""
        self.say(f"\n{self._in(text, 'bold')}")

    def row(self, name: str, text: str, colour: str | None = None) -> None:
        """A row; ``colour``: of its text (`training.base.terminal.COLOURS`)."""
        named, text = f"{name:<14}", text if colour is None else self._in(text, colour)
        self.say(f"  {self._in(named, COLOURS[name]) if name in COLOURS else named} {text}")

    def block(self, text: str) -> None:
        """Lines that are aligned already."""
        for line in text.splitlines():
            self.say(f"  {line}")

    def _in(self, text: str, colour: str) -> str:
        return coloured(text, colour) if self.printed else text
