"""A server in a process of its own, and tiny models for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctc_assets
import numpy as np
import soundfile
from export_assets import saved as saved_model

ROOT = Path(__file__).parents[2]
RATE = 16_000
START_SECONDS = 120


def models(folder: Path) -> dict[str, Path]:
    """A CTC model and a Whisper for both tasks, weights random: their texts mean nothing, and are always the same."""
    ctc = ctc_assets.saved(ctc_assets.tiny(ctc_assets.CONVOLUTIONS), folder / "ctc")
    whisper = saved_model(folder / "whisper", "whisper", encoder_context="full", target_language="en")
    return {"ctc": ctc, "whisper": whisper}


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of tones with pauses between them, float32 at `RATE`."""
    draw = np.random.default_rng(seed)
    time_ = np.arange(round(seconds * RATE)) / RATE
    loud = (np.sin(2 * np.pi * 0.4 * time_ + draw.uniform(0, 6)) > -0.3).astype(float)
    tone = np.sin(2 * np.pi * (200 + 150 * np.sin(2 * np.pi * 3 * time_)) * time_)
    return (0.3 * loud * tone + 0.003 * draw.standard_normal(len(time_))).astype(np.float32)


def clip(path: Path, seconds: float = 1.5, seed: int = 0, rate: int = RATE) -> Path:
    """A file of `speech`; the suffix chooses the format."""
    soundfile.write(path, speech(seconds, seed), rate)
    return path


class Server:
    """``polyvox serve`` on a free port; it is ended with the ``with`` block."""

    def __init__(self, models: dict[str, Path], *options: object, log: Path) -> None:
        self.log = log
        named = [part for name, folder in models.items() for part in ("--model", f"{name}={folder}")]
        with log.open("w", encoding="utf8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.cli", "serve", "--port", "0", *named, *map(str, options)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.port = int(self._logged(r"listening on http://127\.0\.0\.1:(\d+)"))
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _logged(self, pattern: str) -> str:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text(encoding="utf8")):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text(encoding="utf8"))

    def wait(self, what: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Until ``what`` holds."""
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until and self.process.poll() is None, self.log.read_text(encoding="utf8")
            time.sleep(0.05)

    def wait_ready(self) -> Server:
        """Until the models are loaded."""
        self.wait(lambda: self.status("/readyz") == 200)
        return self

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def metric(self, name: str) -> float:
        """The sum of a metric's values."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}(\{{| )", line))

    def children(self, module: str) -> list[int]:
        """Process ids of the server's processes that run ``module``."""
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
            return self.process.wait(60)
        finally:
            self.process.kill()


def error_of(body: bytes) -> dict[str, Any]:
    """The ``error`` of an answer, in OpenAI's form."""
    found = json.loads(body)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found
