"""From audio files to the first and the fiftieth step of training, and what stands on the disk by then.

    POLYVOX_SPEECH=… python benchmarks/cold_start.py [--clips 400] [--output cold_start.json]

The arms of `train_whisper_multitask`, each from nothing: a fresh process, no cache of features, audio files and a
manifest. The time is the process's own, from its start (imports, reading, features, model) to the end of the step.
Bytes: all files that the process made, its caches and its temporary ones among them; no arm saves a checkpoint.
The audio itself is warm in the system's file cache in every arm.

Quality gate: every arm did all its steps, and its loss on held-out clips is finite and below that of the first weights.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import Figures, Round, command_line, count, finish, in_turns, ratio, table, values
from whisper_runs import Clips, choose_clips, flags, make_model, run, step_rows

from training.base.errors import exit_on_user_error
from training.models.common.sizes import SIZES

ARMS = {
    "A": ("stock_recipe.py", []),
    "B": ("stock_recipe.py", ["--best"]),
    "C": ("our_recipe.py", []),
}


def main(argv: Sequence[str] | None = None) -> int:
    """1 where the gate is shut."""
    parser = command_line(__doc__)
    parser.add_argument("--clips", type=count, default=400, help="of the corpus, each for two tasks")
    parser.add_argument("--steps", type=count, default=50)
    parser.add_argument("--batch", type=step_rows, default=4, help="rows (clips × tasks) of a step")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clips = choose_clips(work, args.clips, 8)
        model = make_model(work / "model", clips, SIZES["openai/whisper-tiny"]["config"])
        arms = {name: partial(arm, name, args, clips, model, work) for name in args.arms}
        rounds = in_turns(arms, args.repeats)
    return report(args, clips, rounds)


def arm(name: str, args: argparse.Namespace, clips: Clips, model: Path, work: Path, number: int) -> Figures:
    """One start; the seed is the round's."""
    script, more = ARMS[name]
    options = {
        "model": model,
        "manifest": clips.train,
        "held_out": clips.held_out,
        "root": clips.root,
        "steps": args.steps,
        "batch": args.batch,
        "marks": 1,
        "seed": number,
    }
    found = run(script, work / name, *flags(options), *more)
    steps, written = found["ends"], found["written"]
    return {
        **found,
        "first": steps[0],
        "last": steps[-1],
        "bytes_first": written["1"],
        "bytes_last": written[str(args.steps)],
    }


def report(args: argparse.Namespace, clips: Clips, rounds: Sequence[Round]) -> int:
    """Table, ratios behind the gate, JSON."""
    failures = gate(args, rounds)
    names, figures = list(rounds[0].arms), ("first", "last", "bytes_last")
    ratios = (
        {}
        if failures
        else {
            name: {figure: ratio(rounds, figure, name, "C") for figure in figures}
            for name in names
            if "C" in names
        }
    )
    lines = [
        [
            name,
            f"{values(rounds, name, 'first'):.1f}",
            f"{values(rounds, name, 'last'):.1f}",
            f"{values(rounds, name, 'bytes_last').median / 1e6:.3f}",
            *(f"{ratios[name][figure]:.1f}" if name in ratios else "" for figure in figures[:2]),
        ]
        for name in names
    ]
    hours = clips.seconds / 3600
    print(f"{clips.count} clips, {hours:.2f} hours, two tasks, {args.steps} steps of {args.batch} rows")
    print(
        table(
            ["arm", "s to step 1", f"s to step {args.steps}", "MB written", "step 1, × C", "last, × C"], lines
        )
    )
    return finish(
        args.output,
        args,
        rounds,
        failures,
        clips={"count": clips.count, "seconds": clips.seconds},
        ratios={name: {key: vars(found) for key, found in row.items()} for name, row in ratios.items()},
    )


def gate(args: argparse.Namespace, rounds: Sequence[Round]) -> list[str]:
    """Why no ratio is worth printing; random weights over 51,865 tokens have a loss of about ln of that."""
    failures = []
    for number, one in enumerate(rounds):
        for name, found in one.arms.items():
            if len(found["ends"]) != args.steps:
                failures.append(f"round {number + 1}, {name}: {len(found['ends'])} of {args.steps} steps")
            if not found["held_out_loss"] < math.log(51_865):
                failures.append(f"round {number + 1}, {name}: held-out loss {found['held_out_loss']}")
    return failures


if __name__ == "__main__":
    exit_on_user_error(main)
