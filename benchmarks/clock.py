"""When a training did what, and what it had cost by then: a callback for any of transformers' trainers."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Seconds since the process began: at the first step's begin, at every step's end.

    ``folders``: what the process writes into; their bytes are counted at the steps ``marks`` and at the last one.
    `write` gives all of it as JSON, with the peak of resident memory and of GPU memory in bytes.
    """

    def __init__(self, folders: Sequence[Path] = (), marks: Sequence[int] = ()) -> None:
        self.born = psutil.Process().create_time()
        self.folders, self.marks = folders, marks
        self.begun: float | None = None
        self.ends: list[float] = []
        self.losses: dict[int, float] = {}
        self.written: dict[int, int] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The first batch is there, and nothing is computed yet."""
        if self.begun is None:
            self.begun = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done when the device has done it."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(self._now())
        if state.global_step in self.marks or state.global_step == state.max_steps:
            self.written[state.global_step] = sum(bytes_in(folder) for folder in self.folders)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """The training loss of each logged step."""
        if logs and "loss" in logs:
            self.losses[state.global_step] = float(logs["loss"])

    def write(self, path: Path, **more: Any) -> None:
        """JSON for who started the process."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        found = {
            "begun": self.begun,
            "ends": self.ends,
            "losses": self.losses,
            "written": self.written,
            "resident_bytes": peak,
            "gpu_bytes": gpu,
        }
        path.write_text(json.dumps({**found, **more}), encoding="utf8")

    def _now(self) -> float:
        return time.time() - self.born


def bytes_in(folder: Path) -> int:
    """Of all files below; links are not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
