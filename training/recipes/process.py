"""Each task in a process of its own: its memory goes back when it ends, and signals reach it once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True)
class Ended:
    """Exit status of the process, and the signal that this process was sent meanwhile."""

    status: int
    signal: int | None


def run(command: Sequence[str], *, launcher: bool = False, started: Callable[[int], None]) -> Ended:
    """Run with live output. A signal to stop is passed on as SIGTERM, and the process is waited for.

    The process has a session of its own, so that Ctrl-C reaches the task alone: sent to the whole group, it
    would end the workers that a training step still reads from. With ``launcher`` the command is a launcher,
    which would die before its children have saved: they get the signal. ``started`` is told the process id.
    """
    with _passing_on(launcher) as signals:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
            env=_environment(),
        )
        signals.attach(process.pid)
        started(process.pid)
        status = process.wait()
    return Ended(status, signals.first)


def _environment() -> dict[str, str]:
    """This process's variables; scripts and shells find ``polyvox`` and ``python`` where this Python is."""
    paths = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    return {**os.environ, "PATH": os.pathsep.join(paths)}


class _Signals:
    """Handler of the signals to stop. One that comes before the process is there reaches it when it is."""

    def __init__(self, launcher: bool):
        self.launcher = launcher
        self.first: int | None = None
        self._pid: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or number
        if self._pid is not None:
            self._pass_on(self._pid)

    def attach(self, pid: int) -> None:
        """The process has started."""
        self._pid = pid
        if self.first is not None:
            self._pass_on(pid)

    def _pass_on(self, pid: int) -> None:
        if os.name != "posix":  # a Windows console tells every process itself
            return
        for target in _targets(pid, self.launcher):
            with contextlib.suppress(psutil.NoSuchProcess):
                target.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _passing_on(launcher: bool) -> Iterator[_Signals]:
    signals = _Signals(launcher)
    before = {number: signal.signal(number, signals) for number in STOPS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _targets(pid: int, launcher: bool) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return (process.children() if launcher else []) or [process]
    except psutil.NoSuchProcess:
        return []


def alive(pid: int, created: float) -> bool:
    """Whether this very process still runs (numbers are given again)."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - created) < 2
    except psutil.NoSuchProcess:
        return False


def creation_time(pid: int) -> float:
    """Seconds since the epoch; 0 where the process is gone already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


class Stopped(Exception):
    """A task was stopped by a signal."""

    def __init__(self, key: str, number: int):
        super().__init__(key, number)
        self.key, self.number = key, int(number)
