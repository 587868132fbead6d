"""wav2vec2-large + mBART-50 on a GPU: everything trained, with the vocabulary trimmed, with LNA.

    python benchmarks/gpu_e2e.py [--batch 8] [--seconds 12] [--steps 10] [--output gpu_e2e.json]

Random weights in the shapes that ``configs/prod_e2e.yaml`` names, its precision and checkpointing, made-up clips of one
length, both tasks; the arms take turns, each in a process of its own:
full: mBART's whole vocabulary, every weight learns. trimmed: the vocabulary cut to the languages used (as the dry run
assumes it). lna: trimmed, and of the decoder layer norms and attention alone learn (Li et al., 2021).
Seconds of a step, audio × tasks per second, peak of allocated memory. Two warm-up steps make the optimiser's states.
Quality gate: every loss is finite after the steps.

Where there is no GPU it says so, measures nothing, and ends well. ``--device cpu --config dev_e2e --batch 1`` tries the script in ten gigabytes of memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial

import torch
from common import ROOT, Figures, child, command_line, count, finish, in_turns, ratio, table, values
from memory import real_model, stepper
from stock_recipe import TASKS

from training.base.errors import exit_on_user_error

ARMS = {
    "full": ["model.trim_vocabulary=false", "training.trainable=all"],
    "trimmed": ["model.trim_vocabulary=true", "training.trainable=all"],
    "lna": ["model.trim_vocabulary=true", "training.trainable=lna"],
}
WARM_UP = 2


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured, or no GPU."""
    parser = command_line(__doc__)
    parser.add_argument("--config", default="prod_e2e", help="of configs/, with model.type e2e")
    parser.add_argument("--batch", type=count, default=8, help="clips of a step")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each clip")
    parser.add_argument("--steps", type=count, default=10)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("not measured: this machine has no GPU")
        return 0
    if args.child:
        print(json.dumps(measure(args)))
        return 0
    rounds = in_turns({name: partial(arm, name, args) for name in ARMS}, args.repeats)
    failures = [
        f"{name}: loss {one.arms[name]['loss']}"
        for one in rounds
        for name in ARMS
        if not one.arms[name]["loss"] < float("inf")
    ]
    heard = args.batch * args.seconds * len(TASKS)
    lines = [
        [
            name,
            f"{rounds[0].arms[name]['parameters'] / 1e6:.0f}",
            f"{rounds[0].arms[name]['learning'] / 1e6:.0f}",
            f"{values(rounds, name, 'seconds'):.3f}",
            f"{heard / values(rounds, name, 'seconds').median:.0f}",
            f"{values(rounds, name, 'bytes').median / 2**30:.1f}",
            "" if failures else f"{ratio(rounds, 'seconds', 'full', name):.2f}",
        ]
        for name in ARMS
    ]
    print(
        table(["arm", "M weights", "M learn", "s a step", "audio s × tasks / s", "GiB", "times full"], lines)
    )
    return finish(args.output, args, rounds, failures)


def arm(name: str, args: argparse.Namespace, number: int) -> Figures:
    """One arm in a fresh process."""
    same = ("config", "batch", "seconds", "steps", "device")
    options = [part for key in same for part in (f"--{key}", getattr(args, key))]
    return child(__file__, "--child", name, *options)


def measure(args: argparse.Namespace) -> Figures:
    """Mean seconds of a step, peak bytes, and how many weights there are and learn, in this process."""
    from training.config.load import load_config
    from training.models.architecture import BuildContext
    from training.models.batch import model_inputs
    from training.models.lookup import load
    from training.planning import worst_case

    here = ["profile.precision=fp32"] if args.device == "cpu" else []
    one = [
        "training.gradient_accumulation_steps=1",
        "training.freeze_encoder=false",
        "training.freeze_encoder_epochs=0",
    ]
    overrides = [*ARMS[args.child], *one, f"profile.device={args.device}", *here]
    config = load_config(ROOT / "configs" / f"{args.config}.yaml", overrides)
    architecture = load("e2e").build(config.model, BuildContext(texts=texts(config), meta=True))
    model = real_model(config, architecture, args.device)
    batch = architecture.collate([worst_case.synthetic_features(architecture, args.seconds)] * args.batch)
    step, _ = stepper(config, model, batch, args.device)
    for _ in range(WARM_UP):
        step()
    wait()
    started = time.perf_counter()
    for _ in range(args.steps):
        step()
    wait()
    seconds = (time.perf_counter() - started) / args.steps
    peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    inputs = {
        key: value.to(args.device) if torch.is_tensor(value) else value
        for key, value in model_inputs(batch).items()
    }
    with torch.no_grad():
        loss = float(model(**inputs).loss)
    return {
        "seconds": seconds,
        "bytes": peak,
        "loss": loss,
        "parameters": sum(p.numel() for p in model.parameters()),
        "learning": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def texts(config: object) -> object:
    """For a model from scratch, whose vocabulary would be learnt."""
    from training.planning.texts import stand_in_texts

    scratch = getattr(config.model, "sizes", None) is not None  # type: ignore[attr-defined]
    return (lambda: stand_in_texts(config)) if scratch else None


def wait() -> None:
    """Until the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    exit_on_user_error(main)
