"""The same training as `stock_recipe`, by this library: the configuration for a laptop, the sizes of the measurement.

python benchmarks/our_recipe.py --model FOLDER --manifest train.tsv --work DIR --steps 20 …
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from typing import Any

from clock import Clock
from common import ROOT
from stock_recipe import TASKS, parser


def overrides(args: argparse.Namespace) -> list[str]:
    """What the measurement sets on top of ``configs/dev_whisper.yaml``."""
    return [
        f"model.name={args.model}",
        f"model.full_context_share={args.full_share}",
        # The stock recipe has neither times in its labels, nor a text before them, nor joined clips.
        "model.timestamps=0",
        "model.previous_text=0",
        "augmentation.join.prob=0",
        f"data.train={args.manifest}",
        f"data.dev={args.held_out or args.manifest}",
        f"data.audio_root={args.root}",
        f"paths.output_dir={args.work}",
        "output.experiment_name=run",
        f"profile.device={args.device}",
        f"profile.precision={args.precision}",
        f"dataloader.num_workers={args.workers}",
        "training.gradient_checkpointing=false",
        f"training.batch_size={args.batch // len(TASKS)}",
        "training.gradient_accumulation_steps=1",
        f"training.learning_rate={args.learning_rate}",
        f"training.warmup_ratio={args.warmup_ratio}",
        "training.weight_decay=0",
        f"training.max_steps={args.steps}",
        f"training.logging_steps={args.steps}",
        "training.eval_strategy=no",
        "training.save_strategy=no",
        "training.load_best_model_at_end=false",
        "training.report_to=none",
        f"training.seed={args.seed}",
    ]


def main() -> None:
    """Train, look at the held-out clips, write the clock."""
    args = parser().parse_args()
    clock = Clock([args.work], marks=args.marks)
    from training.api.process import share_the_cores
    from training.config.load import load_config
    from training.decoding.quiet import quiet
    from training.engine.fit import fit
    from training.engine.run import build

    share_the_cores()
    quiet()
    config = load_config(ROOT / "configs" / "dev_whisper.yaml", overrides(args))
    run = build(config)
    results = fit(replace(run, callbacks=(clock,)))
    audio = results["audio_seconds_per_second"] * results["train_seconds"]
    loss = held_out_loss(run) if args.held_out else None
    if args.keep:
        shutil.copytree(run.folder, args.keep, dirs_exist_ok=True)
    clock.write(args.report, held_out_loss=loss, audio_seconds=audio)


def held_out_loss(run: Any) -> float:
    """Mean loss of a token, teacher forced, of both tasks, over the dev split."""
    from training.decoding.predict import predict
    from training.engine.run import open_split, usable
    from training.models.architecture import DecodeOptions

    rows = open_split(run.config, "dev")
    dataset, _ = usable(run.config, run.architecture, rows, "dev")
    return float(predict(run.architecture, dataset, options=DecodeOptions(max_new_tokens=1)).loss)


if __name__ == "__main__":
    main()
