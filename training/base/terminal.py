"""Tables and colour where somebody looks at a terminal, plain text everywhere else.

Plain: output into a file or a pipe, ``NO_COLOR`` set (https://no-color.org), ``TERM=dumb``, and an environment without
rich. rich is imported only where it draws.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

COLOURS = {"green": "32", "yellow": "33", "bold red": "1;31", "bold": "1"}
"""Names of colours → codes of ECMA-48."""
MARKS = {"warning": "yellow", "error": "bold red"}
"""First words of lines that are coloured, with the colour."""


def is_plain(stream: TextIO | None = None) -> bool:
    """Whether a stream gets plain text; None: standard output."""
    stream = sys.stdout if stream is None else stream
    terminal = stream is not None and stream.isatty()
    return not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in one of `COLOURS`; as it is where the stream (None: standard output) is plain."""
    return text if is_plain(stream) else f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def marked(text: str, stream: TextIO | None = None) -> str:
    """The text with its first word ``warning:`` or ``error:`` in colour; as it is where the stream is plain."""
    word, colon, rest = text.partition(":")
    colour = MARKS.get(word)
    return text if colour is None else f"{coloured(word + colon, colour, stream)}{rest}"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a table.

    Args:
        head: names of the columns.
        rows: cells.
        right: numbers of the columns (from 0) that stand at the right.
    """
    print("\n".join(table_lines(head, rows, right=right)))


def table_lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> list[str]:
    """The lines of a table as standard output gets it: drawn on a terminal, else `plain_table`."""
    console = None if is_plain() else _console()
    if console is None:
        return plain_table(head, rows, right=right)
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="right" if number in right else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(table)
    return str(captured.get()).rstrip("\n").split("\n")


def plain_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> list[str]:
    """The table as lines, two spaces between columns."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    return [
        "  ".join(
            f"{cell:>{width}}" if number in right else f"{cell:{width}}"
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()
