"""Whether a split holds the texts that a model is to learn, or to be scored against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.base.errors import UserError
from training.data.columns import CONFIGURATION, no_column
from training.data.manifest import TEXT_COLUMNS


def check_tasks(manifest: Any, tasks: Sequence[str], name: str, *, every: bool) -> None:
    """`UserError` where the split is empty, or where no row has a text for a task.

    ``every``: for one of the tasks is enough to refuse (a training split); otherwise for all of them. ``name`` is
    what the message calls the split.
    """
    if not len(manifest):
        raise UserError(f"{name}: {manifest.path} holds no utterances")
    lacking = _lacking(manifest, tasks)
    if not lacking or (not every and len(lacking) < len(tasks)):
        return
    columns = " or ".join(repr(TEXT_COLUMNS[task]) for task in lacking)
    rest = [task for task in tasks if task not in lacking]
    other = f"set model.task={rest[0]}, or " if rest else ""
    raise UserError(
        f"{name}: no row of {manifest.path} has a text for {' or '.join(lacking)}: the column {columns} is missing or "
        f"empty; {other}name the column with data.columns{_absent(manifest, lacking)}"
    )


def _absent(manifest: Any, lacking: Sequence[str]) -> str:
    """A line for each column that is not there, with the option that names it."""
    there, option = manifest.column_names, getattr(manifest, "column_option", CONFIGURATION)
    names = [TEXT_COLUMNS[task] for task in lacking if TEXT_COLUMNS[task] not in there]
    return "".join(f"\n{no_column(name, there, option)}" for name in names)


def _lacking(manifest: Any, tasks: Sequence[str]) -> list[str]:
    """The tasks without any text; stops reading at the first row that has them all."""
    wanted = set(tasks)
    for task, _, _ in manifest.texts():
        wanted.discard(task)
        if not wanted:
            break
    return [task for task in tasks if task in wanted]
