"""A training step of a pretrained Whisper on one CPU thread: fp32, bf16 with torch's attention, bf16 with ours.

    python benchmarks/cpu_precision.py --config configs/cpu_whisper.yaml --steps 20 \\
        --output outputs/benchmarks/cpu_precision.json model.name=… data.train=…

Every arm has weights and an optimiser of its own and sees the same batches; the arms take turns, in an order that turns with
the step. Times are seconds of this process's CPU, which say more than the clock where other work shares the machine. The
losses are printed, so that it shows that all arms learn the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from common import new_file

from training.config.load import load_config
from training.engine import run as runs
from training.models.common.attention import use_products

ARMS = ("fp32", "bf16", "bf16 and products")


def arm(name: str, model: Any) -> tuple[Any, torch.optim.Optimizer]:
    own = copy.deepcopy(model).train()
    if name == "bf16 and products":
        assert use_products(own)
    return own, torch.optim.AdamW(own.parameters(), lr=1e-5, fused=True)


def step(
    name: str, architecture: Any, trained: tuple[Any, torch.optim.Optimizer], batch: Any
) -> dict[str, float]:
    """One optimiser step: CPU seconds of its parts, and the loss."""
    model, optimiser = trained
    marks = [time.process_time()]
    with torch.autocast("cpu", torch.bfloat16, enabled=name != "fp32"):
        loss = architecture.loss(batch, model=model).loss
    marks.append(time.process_time())
    loss.backward()
    marks.append(time.process_time())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    marks.append(time.process_time())
    forward, backward, update = (later - earlier for earlier, later in pairwise(marks))
    return {"forward": forward, "backward": backward, "update": update, "loss": float(loss.detach())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=new_file, required=True)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(
        args.config, ["training.eval_strategy=no", "training.load_best_model_at_end=false", *args.overrides]
    )
    run = runs.build(config)
    architecture = run.architecture
    sampler = config.data.source.batches(run.train.manifest)(
        max_seconds=config.training.max_batch_seconds,
        batch_size=config.training.batch_size,
        seed=1,
        rank=0,
        world=1,
    )
    arms = {name: arm(name, architecture.model) for name in ARMS}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for number, rows in enumerate(sampler.batches()[: args.steps]):
        batch = architecture.collate([run.train[row] for row in rows])
        turn = number % len(ARMS)
        for name in (*ARMS[turn:], *ARMS[:turn]):
            torch.manual_seed(number)
            found[name].append(step(name, architecture, arms[name], batch))
        print(
            number,
            {name: round(sum(list(one[-1].values())[:3]), 2) for name, one in found.items()},
            flush=True,
        )
        args.output.write_text(json.dumps(summary(found), indent=2) + "\n", encoding="utf8")
    print(json.dumps(summary(found), indent=2))


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians without the first step of each arm, which makes the optimiser's states; ratios are of the same steps."""
    whole = {
        name: [one["forward"] + one["backward"] + one["update"] for one in steps]
        for name, steps in found.items()
    }
    first = 1 if len(whole["fp32"]) > 1 else 0
    return {
        name: {
            "steps": len(steps),
            "seconds": statistics.median(whole[name][first:]),
            "times_as_fast_as_fp32": statistics.median(
                a / b for a, b in zip(whole["fp32"][first:], whole[name][first:], strict=True)
            ),
            **{
                part: statistics.median(one[part] for one in steps[first:])
                for part in ("forward", "backward", "update")
            },
            "mean_loss": statistics.fmean(one["loss"] for one in steps),
        }
        for name, steps in found.items()
    }


if __name__ == "__main__":
    main()
