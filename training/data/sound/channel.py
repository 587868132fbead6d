"""Which channel of a file with several is an utterance's: the column ``channel`` and the key ``audio.channel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = {"left": 0, "right": 1}
COLUMN = "channel"


def parse_channel(cell: str | int | None) -> int | None:
    """The number of a channel, from 0; None for an empty cell. Raises ``ValueError`` for what is no channel."""
    text = "" if cell is None else str(cell).strip().lower()
    if not text:
        return None
    if text in SIDES:
        return SIDES[text]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{str(cell).strip()!r} is neither a number from 0 nor left or right")
    return int(text)


def channel_problems(cells: list[str | None]) -> dict[int, str]:
    """What is wrong by row. A column of which no cell is a channel says something else, such as who published a video:
    it is none of ours then, and nothing is wrong with it."""
    problems: dict[int, str] = {}
    right = 0
    for row, cell in enumerate(cells):
        try:
            right += parse_channel(cell) is not None
        except ValueError as error:
            problems[row] = f"{COLUMN}: {error}"
    return problems if right else {}


def cell_channel(cell: str | None) -> int | None:
    """The channel of a cell whose column was checked (`channel_problems`); None where it is none."""
    try:
        return parse_channel(cell)
    except ValueError:
        return None


def with_default(table: pa.Table, channel: int) -> pa.Table:
    """The table with ``channel`` in every row that names none."""
    import pyarrow as pa  # not above: an exported folder is used without it

    if COLUMN not in table.column_names:
        return table.append_column(COLUMN, pa.array([str(channel)] * len(table), pa.string()))
    cells = [
        cell if cell_channel(cell) is not None else str(channel) for cell in table.column(COLUMN).to_pylist()
    ]
    return table.set_column(table.column_names.index(COLUMN), COLUMN, pa.array(cells, pa.string()))
