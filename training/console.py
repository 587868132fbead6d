"""What a person sees of the work: log lines and progress bars.

The library logs through the standard ``logging``, each module in its own logger below ``training``. A program decides
what becomes of the lines; the commands print them as they are (`shown`). Imports nothing heavy.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("training")
"""Parent of the loggers of all modules."""


def first_rank() -> bool:
    """Whether this process is the one that writes and speaks (the launcher of several processes sets ``RANK``)."""
    return os.environ.get("RANK", "0") == "0"


class Lines(logging.Handler):
    """Hands each message, without level or time, to a function.

    Args:
        write: takes the record and its text. What it raises (a closed pipe, a full disk) ends the work.
    """

    def __init__(self, write: Callable[[logging.LogRecord, str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Called by ``logging``."""
        self.write(record, self.format(record))


@contextmanager
def handled(*handlers: logging.Handler) -> Iterator[None]:
    """The library's lines go to these handlers inside the ``with`` block, from level INFO on."""
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


@contextmanager
def shown(*, warnings_apart: bool = False, log_file: Path | None = None) -> Iterator[None]:
    """The library's lines are printed at once inside the ``with`` block. Of several ranks the first speaks.

    Args:
        warnings_apart: warnings go to standard error instead of standard output.
        log_file: the lines are appended to this file as well; its folder is made.
    """

    def out(record: logging.LogRecord, text: str) -> None:
        if first_rank():
            apart = warnings_apart and record.levelno >= logging.WARNING
            print(text, file=sys.stderr if apart else sys.stdout, flush=True)

    handlers = [Lines(out), *([to_file(log_file)] if log_file and first_rank() else [])]
    with handled(*handlers):
        yield


def to_file(path: Path) -> Lines:
    """A handler that appends the lines to a file, whose folder it makes."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(record: logging.LogRecord, text: str) -> None:
        with path.open("a", encoding="utf8") as file:
            file.write(f"{text}\n")

    return Lines(write)


def watched() -> bool:
    """Whether somebody looks at a progress bar: on a terminal, and in a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(*, total: int, unit: str, desc: str | None = None, **others: Any) -> Any:
    """A tqdm bar; where nobody is `watched`, one that shows nothing.

    In a notebook it is drawn by ipywidgets where that is installed, else as text.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm advises to install ipywidgets
        from tqdm.auto import tqdm
    return tqdm(total=total, unit=unit, desc=desc, disable=not watched(), **others)
