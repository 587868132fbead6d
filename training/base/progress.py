"""How far a long work is: a bar where somebody watches, a line at intervals everywhere else."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from training.base.durations import in_words
from training.base.errors import first_rank

FIRST = 10.0
"""Seconds after which the first line comes: short works say nothing."""
EVERY = 30.0
"""Seconds between two lines; of a work of hours a twentieth of the time that it has taken."""
MIB = 2**20


def watched() -> bool:
    """Whether somebody looks at a progress bar: on a terminal, and in a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(
    *,
    total: float | None,
    unit: str,
    desc: str | None = None,
    first: float = FIRST,
    shown: bool = True,
    **others: Any,
) -> Any:
    """A tqdm bar; where nobody is `watched`, `ProgressLines`.

    In a notebook it is drawn by ipywidgets where that is installed, else as text.

    Args:
        total: how much there is to do; None: not known.
        unit: what is counted; ``B``: bytes.
        desc: what is done.
        first: seconds after which the first line comes where there is no bar.
        shown: False: neither a bar nor lines.
        others: tqdm's options.
    """
    if not watched() or not shown:
        return ProgressLines(total, unit, desc, first=first if shown else float("inf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm advises to install ipywidgets
        from tqdm.auto import tqdm
    return tqdm(total=total, unit=unit, desc=desc, **others)


class ProgressLines:
    """Stands for a bar: the first rank writes a line to standard error at intervals, with the time that is left.

    Args:
        total: how much there is to do; None: not known. It may be set later.
        unit: what is counted; ``B``: bytes, written as MiB.
        desc: what is done.
        first: seconds after which the first line comes.
        clock: gives seconds.
    """

    def __init__(
        self,
        total: float | None,
        unit: str,
        desc: str | None = None,
        *,
        first: float = FIRST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.desc, self.clock = total, unit, desc, clock
        self.n = 0.0
        self.initial = 0.0
        """How much was done before: it does not count for the speed."""
        self.begun = clock()
        self.first = self.next = first

    def update(self, n: float = 1) -> None:
        """So much more is done."""
        self.n += n
        took = self.clock() - self.begun
        if took >= self.next and (self.total is None or self.n < self.total):
            self.next = took + max(EVERY, took / 20)
            if first_rank() and sys.stderr is not None:
                print(self.line(took), file=sys.stderr, flush=True)

    def reset(self, total: float | None = None) -> None:
        """Begin anew, as tqdm's ``reset``; None: the total stays."""
        self.n, self.initial, self.begun, self.next = 0.0, 0.0, self.clock(), self.first
        self.total = self.total if total is None else total

    def line(self, took: float) -> str:
        """``checked: 1,200 of 4,000 clips, 30%, about 2 min left``, after so many seconds."""
        done, name = self._amount(self.n), f"{self.desc}: " if self.desc else ""
        if self.total is None:
            return f"{name}{done} {self._unit} after {in_words(took)}"
        parts = [f"{done} of {self._amount(self.total)} {self._unit}", f"{self.n / max(self.total, 1):.0%}"]
        if (new := self.n - self.initial) > 0:
            parts.append(f"about {in_words(took / new * (self.total - self.n))} left")
        return name + ", ".join(parts)

    @property
    def _unit(self) -> str:
        return {"B": "MiB", "s": "s"}.get(self.unit, f"{self.unit}s")

    def _amount(self, value: float) -> str:
        return f"{value / MIB if self.unit == 'B' else value:,.0f}"

    def set_postfix_str(self, text: str) -> None:
        """A bar's remark; lines have none."""

    def external_write_mode(self) -> AbstractContextManager[None]:
        """Lines of others do not disturb these."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
