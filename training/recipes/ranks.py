"""Several processes of one training on this machine, one for each GPU (``polyvox train --multi_gpu``).

Each gets the variables that ``torch.distributed`` reads (``env://``: RANK, WORLD_SIZE, MASTER_ADDR, …), as torchrun sets
them. Unlike torchrun this passes a signal on once and waits until every process has saved, hands on the exit status of
the processes, and shows one copy of what they all say.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any

from training.recipes.process import STOPS

PATIENCE = 30.0
"""Seconds that the others get to end by themselves after one has failed: they wait for it and would never."""
POLL = 0.2


def run_ranks(arguments: Sequence[str], processes: int) -> int:
    """Run ``polyvox`` with these arguments in so many processes; their exit status.

    Args:
        arguments: of the command, such as ``["train", "--config", "a.yaml"]``.
        processes: how many.

    Returns:
        0 where all ended well; else the status of the first that did not, 128 + n where signal n ended them.
    """
    command = [sys.executable, "-m", "training.cli", *arguments]
    shared = _environment(processes)
    with tempfile.TemporaryFile("w+", encoding="utf8", errors="replace") as others:
        ranks = [_start(command, rank, shared, others) for rank in range(processes)]
        received, before = _passing_on(ranks)
        try:
            status = _wait(ranks)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if status and status != ranks[0].returncode and not received:
            others.seek(0)
            sys.stderr.write(others.read())
    return status


def _environment(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _start(
    command: Sequence[str], rank: int, shared: dict[str, str], others: IO[str]
) -> subprocess.Popen[Any]:
    first = rank == 0
    return subprocess.Popen(
        list(command),
        env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        stdin=subprocess.DEVNULL,
        stdout=None if first else subprocess.DEVNULL,
        stderr=None if first else others,
        start_new_session=os.name == "posix",  # Ctrl-C reaches them once, through this process
    )


def _passing_on(ranks: Sequence[subprocess.Popen[Any]]) -> tuple[list[int], dict[int, Any]]:
    """Signals to stop go to all processes; the list of those received, and the handlers of before."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for rank in ranks:
            if os.name == "posix" and rank.poll() is None:  # a Windows console tells every process itself
                rank.send_signal(number)

    return received, {number: signal.signal(number, handle) for number in STOPS}


def _wait(ranks: Sequence[subprocess.Popen[Any]]) -> int:
    """Until all have ended; after a failure the others are ended too."""
    failed_at: float | None = None
    status = 0
    while None in [rank.poll() for rank in ranks]:  # each is asked: only that sets its status
        time.sleep(POLL)
        if failed_at is None and (failed := _first_failure(ranks)):
            status, failed_at = failed, time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > PATIENCE:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
    return status or _first_failure(ranks)


def _first_failure(ranks: Sequence[subprocess.Popen[Any]]) -> int:
    codes = [rank.returncode for rank in ranks if rank.returncode]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]
