"""Batches in this process, or in several that each load the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from training.alignment.parts import Record
from training.base.errors import UserError
from training.data.workers import follow, interrupts_held

Work = Callable[[Sequence[int]], list[Record]]

_work: Work | None = None


def in_processes(work: Work, batches: Sequence[Sequence[int]], count: int) -> Iterator[list[Record]]:
    """The records that ``work`` makes of each batch, in the order in which batches finish.

    Processes are spawned; their exceptions are raised here. Raises `UserError` where the system has ended one.
    """
    count = min(count, len(batches))
    if count < 2:
        yield from map(work, batches)
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (work, os.getpid(), count))
    try:
        with interrupts_held():
            wanted = [pool.submit(_do, batch) for batch in batches]  # processes start here
        for done in as_completed(wanted):
            yield done.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"--parallel {count}: one of the processes was ended by the system (memory?); call again with fewer, "
            "what was found is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Work, parent: int, count: int) -> None:
    """The start of a process: Ctrl-C is its parent's alone, and it ends when that is gone, killed too."""
    global _work
    _work = work
    follow(parent)
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))


def _do(batch: Sequence[int]) -> list[Record]:
    assert _work is not None
    return _work(batch)
