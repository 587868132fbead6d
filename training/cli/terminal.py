"""Tables and colour where somebody looks at a terminal, plain text everywhere else.

Plain: output into a file or a pipe, ``NO_COLOR`` set (https://no-color.org), ``TERM=dumb``, and an environment without
rich. rich is imported only where it draws.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

COLOURS = {"green": "32", "yellow": "33", "bold red": "1;31", "bold": "1"}
"""Names of colours → codes of ECMA-48."""


def is_plain() -> bool:
    """Whether standard output gets plain text."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def coloured(text: str, colour: str) -> str:
    """The text in one of `COLOURS`; as it is where output is plain."""
    return text if is_plain() else f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a table.

    Args:
        head: names of the columns.
        rows: cells.
        right: numbers of the columns (from 0) that stand at the right.
    """
    console = None if is_plain() else _console()
    if console is None:
        print("\n".join(plain_table(head, rows, right=right)))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="right" if number in right else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


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
