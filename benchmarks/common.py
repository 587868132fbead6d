"""What the measurements share: arms that take turns, paired ratios, the machine they ran on, one table and one JSON.

A measurement is ``repeats`` rounds; in each round every arm runs once, in the same order (ABCABC). A ratio is taken
within a round, so that both of its arms had the machine in the same state, and reported as median and range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, Any]
"""What one arm gave in one round, by name."""


@dataclass(frozen=True)
class Spread:
    """Median and range of some repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True)
class Round:
    """One turn of every arm, and what else the machine did (load averages of 1, 5 and 15 minutes at its end)."""

    arms: dict[str, Figures]
    load: tuple[float, float, float]


def count(text: str) -> int:
    """Of what there must be at least one: for argparse, which says so and ends with status 2."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"{found} is not at least 1")
    return found


def new_file(text: str) -> Path:
    """A file that is not there yet, for argparse: a result of hours is not written over."""
    path = Path(text)
    if path.exists():
        raise argparse.ArgumentTypeError(f"{path} is there already: give another name, or move it first")
    return path


def child(script: str | Path, *options: object) -> Figures:
    """What a script prints last, as JSON, in a fresh process; `UserError` with its words where it fails."""
    command = [sys.executable, str(script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " ".join(map(str, options))
        raise UserError(f"{Path(script).name} {told}: exit status {done.returncode}\n{done.stderr[-4000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def command_line(description: str | None, *, repeats: int = 3) -> argparse.ArgumentParser:
    """``--repeats`` and ``--output``; the module's docstring is its help."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=count, default=repeats, help=f"rounds of all arms ({repeats})")
    parser.add_argument(
        "--output", type=new_file, help="JSON file for versions, machine, load and all repeats"
    )
    return parser


def in_turns(arms: Mapping[str, Callable[[int], Figures]], repeats: int) -> list[Round]:
    """Each arm once per round, called with the number of the round; says how far it is on stderr.

    Where an arm fails, what the others found goes to stderr as JSON before the error goes on: hours are not lost with it.
    """
    rounds: list[Round] = []
    found: dict[str, Figures] = {}
    try:
        for number in range(repeats):
            for name, arm in arms.items():
                print(f"round {number + 1}/{repeats}: {name} …", file=sys.stderr, flush=True)
                found[name] = arm(number)
            rounds.append(Round(found, os.getloadavg()))
            found = {}
    except BaseException:
        if rounds or found:
            so_far = {"rounds": [asdict(one) for one in rounds], "unfinished": found}
            print(f"found before the failure: {json.dumps(so_far, ensure_ascii=False)}", file=sys.stderr)
        raise
    return rounds


def values(rounds: Sequence[Round], arm: str, figure: str) -> Spread:
    """A figure of an arm over the rounds."""
    return Spread.of(one.arms[arm][figure] for one in rounds)


def ratio(rounds: Sequence[Round], figure: str, above: str, below: str) -> Spread:
    """``above`` / ``below`` of a figure, arm against arm within each round."""
    return Spread.of(one.arms[above][figure] / one.arms[below][figure] for one in rounds)


def gap(rounds: Sequence[Round], figure: str, ours: str, stock: str) -> tuple[float, float]:
    """Mean of our arm less that of the stock one, and the noise of the seeds: the sum of both standard deviations."""
    above, below = ([one.arms[arm][figure] for one in rounds] for arm in (ours, stock))
    return statistics.mean(above) - statistics.mean(below), statistics.stdev(above) + statistics.stdev(below)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first one flush left."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = (
        "  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU, load, versions: without them a figure says nothing."""
    import psutil
    import torch

    from training.engine.versions import commit, versions

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def finish(
    output: Path | None,
    settings: argparse.Namespace,
    rounds: Sequence[Round],
    failures: Sequence[str] = (),
    **results: Any,
) -> int:
    """Write the JSON; the exit status: 1, with the reasons, where the quality gate has ``failures``."""
    content = {
        "benchmark": Path(sys.argv[0]).stem,
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(settings).items()},
        "machine": machine(),
        "rounds": [asdict(one) for one in rounds],
        "failures": list(failures),
        **{name: asdict(v) if isinstance(v, Spread) else v for name, v in results.items()},
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    for failure in failures:
        print(f"no ratio is worth printing: {failure}", file=sys.stderr)
    return 1 if failures else 0
