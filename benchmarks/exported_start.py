"""From the start of ``polyvox transcribe`` to the first text, and its memory: exported folders beside their original.

    python benchmarks/exported_start.py CLIP.wav --original outputs/demo_whisper --exported out/ct2 out/onnx \\
        [--python ENVIRONMENT/bin/python] [--repeats 5] [-- --language vi --no_fallback]

Each arm is a new process, in turns, with the system's file cache warm (a call of each before the first round). ``--python``: the
interpreter of an environment without torch and transformers, which runs the exported folders; the original runs in this one.
What follows ``--`` goes to every command. Seconds are of the clock and of the processor: on a busy machine only the latter
mean something. Memory is the largest resident one. Exit status 1 where a command fails, or where the shortest start of an
exported folder is above 2 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import ROOT, Figures, Round, command_line, finish, in_turns, table, values

from training.base.errors import UserError, exit_on_user_error

LIMIT = 2.0
"""Seconds from the start to the first text."""


def main() -> int:
    """Measure, print the table; 1 when a folder starts too slowly."""
    ours, _, more = " ".join(["", *sys.argv[1:]]).partition(" -- ")
    parser = command_line(__doc__, repeats=5)
    parser.add_argument("clip", type=Path, help="a sound file")
    parser.add_argument("--original", type=Path, help="the run that the folders were exported from")
    parser.add_argument("--exported", nargs="+", type=Path, required=True, help="folders of polyvox export")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="for the exported folders")
    args = parser.parse_args(ours.split())
    options = more.split()
    arms = {
        str(folder): partial(measure, args.python, args.clip, folder, options) for folder in args.exported
    }
    if args.original is not None:
        arms[str(args.original)] = partial(measure, Path(sys.executable), args.clip, args.original, options)
    folders, args.exported = args.exported, [str(folder) for folder in args.exported]
    for arm in arms.values():
        arm(0)
    rounds = in_turns(arms, args.repeats)
    print(table(("folder", "seconds", "shortest", "of the processor", "MiB"), rows(rounds)))
    slow = [
        f"{folder}: {shortest(rounds, str(folder)):.2f} s, the limit is {LIMIT:g} s"
        for folder in folders
        if shortest(rounds, str(folder)) > LIMIT
    ]
    return finish(args.output, args, rounds, slow)


def measure(python: Path, clip: Path, folder: Path, options: Sequence[str], _: int) -> Figures:
    """One process: seconds to its first line, of the clock; seconds of the processor and peak memory in MiB of all of it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "training.cli", "transcribe", str(clip), "--model", str(folder), *options]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    seconds = time.perf_counter() - started
    rest, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not (first + rest).strip():
        raise UserError(f"{folder}: exit status {process.returncode}: {errors.strip()[-2000:]}")
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 2**10,
    }


def shortest(rounds: Sequence[Round], arm: str) -> float:
    return values(rounds, arm, "seconds").low


def rows(rounds: Sequence[Round]) -> list[list[str]]:
    """The table's lines: median and range."""
    return [
        [
            name,
            f"{values(rounds, name, 'seconds'):.2f}",
            f"{shortest(rounds, name):.2f}",
            f"{values(rounds, name, 'processor_seconds'):.2f}",
            f"{values(rounds, name, 'peak_mib').median:.0f}",
        ]
        for name in rounds[0].arms
    ]


if __name__ == "__main__":
    exit_on_user_error(main)
