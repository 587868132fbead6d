"""A task (one process) and a step (what is announced), and how a command is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes.attempt import Start
from training.recipes.state import State, fingerprint

Say = Callable[[str], None]


def _no_flags(inputs: str) -> Start:
    return Start()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process. ``start`` is told the hash of the inputs and adds flags; ``notes`` are kept when it is done.

    ``may_write``: files that it writes where it can; those that it has written are looked for like those of ``writes``.
    ``place``: file and line of the recipe; ``ours``: whether it is one of our commands.
    """

    key: str
    command: tuple[str, ...]
    values: Any = None
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    may_write: tuple[Path, ...] = ()
    start: Callable[[str], Start] = _no_flags
    notes: Callable[[], dict[str, Any]] = dict
    launcher: bool = False
    place: str = ""
    ours: bool = True

    def inputs(self) -> str:
        """Hash of everything that the result depends on."""
        return fingerprint(self.values, self.reads)


@dataclass(frozen=True)
class Step:
    """What is announced as ``[n/N]``. Tasks are made when the step begins: they depend on what is there."""

    title: str
    tasks: Callable[[], list[Task]] = field(repr=False)
    first_machine_only: bool = False


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """A module under this interpreter."""
    return (sys.executable, "-m", name, *arguments)


def program(words: Sequence[str]) -> tuple[str, ...]:
    """What is started: ``polyvox`` and ``python`` are this interpreter's."""
    name, *rest = words
    if name == "polyvox":
        return module("training.cli", *rest)
    if name == "python":
        return module(*rest[1:]) if rest[:1] == ["-m"] and len(rest) > 1 else (sys.executable, *rest)
    return (name, *rest)


def launched(words: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """``polyvox …`` or ``python …`` under ``accelerate launch`` with its options."""
    name, *rest = words
    inner = ("-m", "training.cli", *rest) if name == "polyvox" else tuple(rest if name == "python" else words)
    return module("accelerate.commands.accelerate_cli", "launch", *options, *inner)


def foreign(path: Path, key: str, state: State) -> bool:
    """Whether something is there that the task ``key`` has not made."""
    return path.exists() and state.record(key) is None


def score_lines(metrics: Iterable[Path]) -> list[str]:
    """A line for each evaluation's file ``<name>_metrics.json`` that is there."""
    from training.evaluation.summary import score_text

    lines = []
    for path in metrics:
        if path.is_file():
            scores: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))["scores"]
            text = ", ".join(f"{metric} {score_text(score)}" for metric, score in scores.items())
            lines.append(f"  {path.name.removesuffix('_metrics.json')}: {text}")
    return lines
