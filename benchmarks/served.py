"""``polyvox serve`` in a process of its own, for measurements and tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180


class Server:
    """A server on a free port; it is ended with the ``with`` block.

    models: folder by name. options: of ``polyvox serve``. log: file that it writes to. key: that `get` shows.
    """

    def __init__(self, models: Mapping[str, Path], *options: object, log: Path, key: str = "") -> None:
        self.log, self.key = log, key
        named = [part for name, folder in models.items() for part in ("--model", f"{name}={folder}")]
        with log.open("w", encoding="utf8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.cli", "serve", "--port", "0", *named, *map(str, options)],
                env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.wait(lambda: self._listening() is not None)
        self.port = int(self._listening() or 0)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _listening(self) -> str | None:
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log.read_text(encoding="utf8"))
        return found and found[1]

    def wait(self, what: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Until ``what`` holds; ``AssertionError`` with the log where it does not in time, or the server ends."""
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until and self.process.poll() is None, self.log.read_text(
                encoding="utf8"
            )
            time.sleep(0.05)

    def wait_ready(self) -> Self:
        """Until the models are loaded."""
        self.wait(lambda: self.status("/readyz") == 200)
        return self

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, headers=headers), timeout=30
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def status(self, path: str) -> int:
        """Of HTTP."""
        return self.get(path)[0]

    def metric(self, name: str) -> float:
        """The sum of a metric's values."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}(\{{| )", line))

    def children(self, module: str = "") -> list[int]:
        """Process ids of the server's own processes; of those that run ``module``."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and module in (path / "cmdline").read_text():
                    found.append(int(path.name))
            except (OSError, ValueError):
                continue
        return found

    def end(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)
        finally:
            self.process.kill()
