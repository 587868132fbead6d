"""Resident memory of exported folders over many runs of random lengths: an engine that keeps something of each run shows here.

    python benchmarks/exported_memory.py out/ct2 out/onnx [--runs 2000] [--longest 6] [--words] [--output memory.json]

Each folder gets a process of its own, which decodes clips of noise of half a second to ``--longest`` seconds one by one and
writes down its resident memory after every 200 of them (Linux: ``/proc/self/statm``). ``--words``: with the times of words. Exit
status 1 where the memory at the end is more than 1.05 times that after 200 runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from common import Figures, Round, child, command_line, count, finish, table

from training.base.errors import UserError, exit_on_user_error

STEP = 200
MOST = 1.05
TOKENS = 24
"""Bound of a text: noise has no words, and a model may write as many as it is allowed."""
SHORTEST = 0.5
"""Seconds of the shortest clip."""


def main() -> int:
    """Measure each folder, print the table; 1 where memory grows."""
    parser = command_line(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of polyvox export")
    parser.add_argument("--runs", type=count, default=2000, help="clips (2000)")
    parser.add_argument("--longest", type=float, default=6.0, help="seconds of the longest clip (6)")
    parser.add_argument("--words", action="store_true", help="with the times of words")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.runs < 2 * STEP:
        raise UserError(f"--runs {args.runs}: at least {2 * STEP}")
    if args.child:
        print(json.dumps(measured(args.folders[0], args.runs, args.longest, args.words)))
        return 0
    options = [
        "--child",
        "--runs",
        args.runs,
        "--longest",
        args.longest,
        *(["--words"] if args.words else []),
    ]
    found: dict[str, Figures] = {}
    folders, args.folders = args.folders, [str(folder) for folder in args.folders]
    for folder in folders:
        print(f"{folder} …", file=sys.stderr, flush=True)
        found[str(folder)] = child(__file__, folder, *options)
    lines = [
        [name, one["engine"], f"{one['mib'][0]:.1f}", f"{one['mib'][-1]:.1f}", f"{one['ratio']:.3f}"]
        for name, one in found.items()
    ]
    print(table(("folder", "engine", f"MiB after {STEP}", f"after {args.runs}", "ratio"), lines))
    grown = [f"{name}: {one['ratio']:.3f}" for name, one in found.items() if one["ratio"] > MOST]
    return finish(args.output, args, [Round(found, os.getloadavg())], grown)


def measured(folder: Path, runs: int, longest: float, words: bool) -> dict[str, Any]:
    """Resident memory in MiB after every `STEP` runs, and the last by the first."""
    import numpy as np

    from training.data.example import AudioRef, Example
    from training.decoding.ctc_decoding import with_frame_decoder
    from training.decoding.loading import load_trained, with_word_times
    from training.models.architecture import AUTO, DecodeOptions

    trained = load_trained(folder)
    trained = with_word_times(trained) if words else trained
    model = trained.architecture
    language = model.languages[0]
    options = with_frame_decoder(model, DecodeOptions(max_new_tokens=TOKENS))
    lengths, noise = random.Random(0), np.random.default_rng(0)
    mib = []
    with model.inference():
        for run in range(1, runs + 1):
            seconds = lengths.uniform(SHORTEST, longest)
            sound = noise.standard_normal(round(seconds * model.sample_rate)).astype(np.float32) * 0.1
            example = Example(
                id=str(run),
                audio=AudioRef(path=""),
                duration=seconds,
                texts={},
                language="en" if language == AUTO else language,
            )
            batch = model.on_device(model.collate([model.encode(example, sound)]))
            model.decode(batch, options)
            if run % STEP == 0:
                mib.append(resident())
    engine = trained.exported.format if trained.exported else "PyTorch"
    return {"engine": engine, "mib": mib, "ratio": mib[-1] / mib[0]}


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    exit_on_user_error(main)
