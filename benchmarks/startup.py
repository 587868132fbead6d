"""How long the commands take before they say anything: ``--help`` of each, and the dry runs of small configurations.

    python benchmarks/startup.py [--repeats 3] [--only help|dry_run] [--folder FOLDER] [--output startup.json]

Every arm is a new process, with the system's file cache warm and Python's bytecode written (a call of each before the
first round sees to both). Seconds are of the clock and of the processor: on a busy machine only the latter mean
something. A dry run is made in an empty folder, where it finds no data; with ``--folder`` also in that folder, which
holds the ``data`` and ``outputs`` of the demo. Exit status 1 where a command does not end as it should, or where its
median is above the limit: 1 s for ``--help``, 10 s for a dry run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import ROOT, Figures, Round, command_line, finish, in_turns, table, values

from training.base.errors import UserError, exit_on_user_error
from training.cli import COMMANDS

CONFIGURATIONS = (
    "demo_whisper",
    "demo_e2e",
    "demo_ctc",
    "demo_domain_base",
    "demo_voxlm_encoder",
    "digits_ctc",
    "voxlm-0.5b",
)
"""From scratch, or of sizes that are known: they can be planned before anything is there."""
PARTS = ("demo_domain_whisper", "demo_voxlm")
"""Made of earlier runs: tried in a ``--folder`` that has these."""
HELP, DRY_RUN = "--help", "--dry_run"
LIMITS = {HELP: 1.0, DRY_RUN: 10.0}
"""Seconds that the median of an arm may take."""
EXPECTED = {HELP: "usage: ", DRY_RUN: "  result         valid"}
"""What a command has printed that did what it should."""


def main() -> int:
    """Measure, print the table; 1 when a command fails or is too slow."""
    parser = command_line(__doc__)
    parser.add_argument("--only", choices=("help", "dry_run"), help="one of the two kinds of arms")
    parser.add_argument("--folder", type=Path, help="holds data/ and outputs/ for dry runs with data")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        commands = chosen(args, Path(empty))
        arms = {name: partial(measure, *command) for name, command in commands.items()}
        for name, arm in arms.items():
            print(f"warming up: {name} …", file=sys.stderr, flush=True)
            arm(0)
        rounds = in_turns(arms, args.repeats)
    print(table(("command", "seconds", "of the processor", "MiB", "limit"), rows(rounds)))
    return finish(args.output, args, rounds, failures(rounds))


def chosen(args: argparse.Namespace, empty: Path) -> dict[str, tuple[Sequence[str], Path]]:
    """Arguments and folder of every arm that was asked for, by the arm's name."""
    arms: dict[str, tuple[Sequence[str], Path]] = {}
    if args.only != "dry_run":
        arms |= {" ".join(words): (words, empty) for words in ([HELP], *([c, HELP] for c in COMMANDS))}
    if args.only != "help":
        arms |= {f"{name} {DRY_RUN}": (dry_run(name), empty) for name in CONFIGURATIONS}
        if args.folder is not None:
            there = args.folder.resolve()
            if not there.is_dir():
                raise UserError(f"--folder: {there} is no folder")
            arms |= {f"{name} {DRY_RUN}, data": (dry_run(name), there) for name in (*CONFIGURATIONS, *PARTS)}
    return arms


def dry_run(name: str) -> list[str]:
    """The arguments of a configuration's dry run."""
    return ["train", "--config", str(ROOT / "configs" / f"{name}.yaml"), DRY_RUN]


def measure(arguments: Sequence[str], folder: Path, _: int) -> Figures:
    """One process: its seconds, of the clock and of the processor, its peak memory in MiB, and why it failed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "training.cli", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf8") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)  # not wait(): what this one child took
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 2**10,
        "failure": failure(kind(arguments), process.returncode, text),
    }


def kind(arguments: Sequence[str]) -> str:
    """`HELP` or `DRY_RUN`."""
    return DRY_RUN if DRY_RUN in arguments else HELP


def failure(asked: str, status: int, said: str) -> str | None:
    """Why a command did not do what was asked; None where it did."""
    if status == 0 and EXPECTED[asked] in said:
        return None
    return f"exit status {status}: {said.strip().splitlines()[-1] if said.strip() else 'nothing printed'}"


def rows(rounds: Sequence[Round]) -> list[list[str]]:
    """The table's lines: median and range."""
    return [
        [
            name,
            f"{values(rounds, name, 'seconds'):.2f}",
            f"{values(rounds, name, 'processor_seconds'):.2f}",
            f"{values(rounds, name, 'peak_mib').median:.0f}",
            f"{limit(name):g} s",
        ]
        for name in rounds[0].arms
    ]


def limit(arm: str) -> float:
    """Seconds that the median of this arm may take."""
    return LIMITS[kind(arm.replace(",", "").split())]


def failures(rounds: Sequence[Round]) -> list[str]:
    """Commands that failed, and those above their limit."""
    found = []
    for name in rounds[0].arms:
        median = values(rounds, name, "seconds").median
        if reasons := [one.arms[name]["failure"] for one in rounds if one.arms[name]["failure"]]:
            found.append(f"{name}: {reasons[0]}")
        elif median > limit(name):
            found.append(f"{name}: {median:.1f} s, the limit is {limit(name):g} s")
    return found


if __name__ == "__main__":
    exit_on_user_error(main)
