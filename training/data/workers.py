"""Signals: how the processes of a command stop with it."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_SECONDS = 600.0
_ORPHANED = 1


def leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach the whole process group: a worker that died of them would cost the last save.

    For a loader's ``worker_init_fn``. Ctrl-C is the run's alone. After a first SIGTERM a worker goes on, so that the
    step or the evaluation under way can end; a second one ends it (torch sends it when its loader closes), and so do
    the end of the run's process and `PATIENCE_SECONDS`.
    """
    told = threading.Event()

    def end(number: int, frame: Any) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()
        threading.Thread(
            target=end_with, args=(os.getppid(), 128 + number, PATIENCE_SECONDS), daemon=True
        ).start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def follow(parent: int) -> None:
    """For the start of a process that works for ``parent``: Ctrl-C is the parent's alone, and it ends when that is gone,
    killed too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(parent, _ORPHANED), daemon=True).start()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is left; processes that are started within it never get it, not even while they
    start. On systems without signal masks (Windows) nothing is held."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int, status: int, patience: float = math.inf) -> None:
    """End this process when ``parent`` is gone, or after ``patience`` seconds. For a thread."""
    limit = time.monotonic() + patience
    while os.getppid() == parent and time.monotonic() < limit:
        time.sleep(0.5)
    os._exit(status)
