"""Training of Whisper on two tasks through the real trainers: stock recipe, stock with its best flags, this library.

    POLYVOX_SPEECH=… python benchmarks/train_whisper_multitask.py [--steps 20] [--output multitask.json]

Arms, interleaved, each in a process of its own, from the same random weights in whisper-tiny's shape, over the same
clips of 2-10 s (of ``mboshi_french`` below POLYVOX_SPEECH, where that is set; else of a demo corpus made for it), each
heard once for transcription and once for translation; ``--batch`` rows (clip × task) a step, same
optimiser, learning rates, tokens:
A: `stock_recipe`. B: the same with ``--best``. C: `our_recipe`, trimmed contexts. F: C with every batch at 30 s.
``shipped`` is what a run with the shipped configuration pays: C, and F for its share of full batches. Unit: seconds of
audio × tasks per second, from the first batch to the end of the last step.

Quality gate: loss and gradients of one batch equal stock's to 1e-5 (at 30 s), and the loss on held-out clips after the
last step is no worse than B's by more than the noise of the seeds (one per round). WER at equal steps:
`wer_at_equal_steps.py`. One round alone has no noise to go by: its ratio is not printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import Figures, Round, command_line, count, finish, gap, in_turns, ratio, table, values
from multitask_step import check, shipped_share, stock_of, tiny_architecture
from stock_recipe import TASKS
from whisper_runs import WHISPERS, Clips, choose_clips, flags, make_model, run, step_rows

from training.base.errors import exit_on_user_error
from training.models.common.sizes import SIZES

ARMS = {
    "A": ("stock_recipe.py", []),
    "B": ("stock_recipe.py", ["--best"]),
    "C": ("our_recipe.py", []),
    "F": ("our_recipe.py", ["--full_share", 1.0]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """1 where the gate is shut."""
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=count, default=20)
    parser.add_argument("--batch", type=step_rows, default=8, help="rows (clips × tasks) of a step")
    parser.add_argument("--held_out", type=count, default=24, help="clips for the loss after training")
    parser.add_argument("--shape", choices=WHISPERS, default="openai/whisper-tiny")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clips = choose_clips(work, args.steps * args.batch // len(TASKS), args.held_out)
        model = make_model(work / "model", clips, SIZES[args.shape]["config"])
        arms = {name: partial(arm, name, args, clips, model, work) for name in args.arms}
        rounds = in_turns(arms, args.repeats)
    return report(args, clips, rounds)


def arm(name: str, args: argparse.Namespace, clips: Clips, model: Path, work: Path, number: int) -> Figures:
    """One training; the seed is the round's."""
    script, more = ARMS[name]
    same = {key: getattr(args, key) for key in ("steps", "batch", "workers", "device", "precision")}
    data = {"manifest": clips.train, "held_out": clips.held_out, "root": clips.root, "model": model}
    found = run(script, work / name, *flags({**data, **same, "seed": number}), *more)
    seconds = found["ends"][-1] - found["begun"]
    heard = found.get("audio_seconds", clips.seconds) * len(TASKS)
    return {**found, "seconds": seconds, "rate": heard / seconds}


def report(args: argparse.Namespace, clips: Clips, rounds: Sequence[Round]) -> int:
    """Table, ratios behind the gate, JSON."""
    full = tiny_architecture("full")
    difference = check(full, stock_of(full))
    failures = gate(rounds, difference)
    share = shipped_share()
    for one in rounds:
        if {"C", "F"} <= one.arms.keys():
            fast, full = one.arms["C"]["rate"], one.arms["F"]["rate"]
            one.arms["shipped"] = {**one.arms["C"], "rate": 1 / ((1 - share) / fast + share / full)}
    names = list(rounds[0].arms)
    ratios = (
        {name: ratio(rounds, "rate", name, "B") for name in names} if "B" in names and not failures else {}
    )
    lines = []
    for name in names:
        found = [
            f"{values(rounds, name, 'rate'):.1f}",
            f"{values(rounds, name, 'resident_bytes').median / 2**30:.2f}",
        ]
        found += [f"{values(rounds, name, 'held_out_loss'):.3f}"]
        found += [f"{ratios[name]:.2f}" if name in ratios else ""]
        lines.append([name, *found])
    print(
        f"{clips.count} clips, {clips.seconds / clips.count:.1f} s on average, {args.steps} steps of {args.batch} rows"
    )
    print(table(["arm", "audio s × tasks / s", "GiB resident", "held-out loss", "times B"], lines))
    print(
        f"shipped: {share:.0%} of the clips at 30 s; loss and gradients differ from stock's by {max(difference.values()):.1e}"
    )
    return finish(
        args.output,
        args,
        rounds,
        failures,
        difference=difference,
        clips={"count": clips.count, "seconds": clips.seconds},
        ratios={name: vars(found) for name, found in ratios.items()},
    )


def gate(rounds: Sequence[Round], difference: dict[str, float]) -> list[str]:
    """Why no ratio is worth printing."""
    failures = []
    if not all(found <= 1e-5 for found in difference.values()):  # which a NaN is not
        failures.append(f"loss or gradients differ from stock's by {max(difference.values()):.1e}")
    if {"B", "C"} <= rounds[0].arms.keys():
        if len(rounds) < 2:
            return [*failures, "one round has no noise of seeds to hold the losses against"]
        stock, ours = ([one.arms[name]["held_out_loss"] for one in rounds] for name in "BC")
        if not all(map(math.isfinite, [*ours, *stock])):
            return [*failures, f"held-out losses of B {stock} and of C {ours}"]
        worse, noise = gap(rounds, "held_out_loss", "C", "B")
        if worse > noise:
            failures.append(
                f"held-out loss is worse than B's by {worse:.3f}, the seeds' noise is {noise:.3f}"
            )
    return failures


if __name__ == "__main__":
    exit_on_user_error(main)
