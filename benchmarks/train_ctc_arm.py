"""One training of `train_ctc_to_quality.py` in a process of its own: a curve of seconds and CER, as JSON.

python benchmarks/train_ctc_arm.py C --config configs/digits_ctc.yaml --target 5 --output found.json [key=value …]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation_clock import EvaluationClock

from training.base.errors import exit_on_user_error


def ours(config: Any, clock: EvaluationClock) -> int:
    """What ``polyvox train`` does with the configuration; the utterances it trains on."""
    import training.models.ctc.build  # noqa: F401  # imports are on nobody's clock
    from training.engine.fit import Abandoned, fit
    from training.engine.run import build

    clock.start()
    run = replace(build(config), callbacks=(clock,))
    with suppress(Abandoned):  # at the target
        fit(run)
    return len(run.train)


def stock(config: Any, clock: EvaluationClock, arm: str, *, stock_log_mels: bool) -> int:
    """The same model in stock transformers; the utterances it trains on. Choosing them is not on the clock."""
    import stock_ctc
    import torch

    from training.engine.run import build

    recipe = stock_ctc.TUTORIAL if arm == "A" else stock_ctc.BEST_FLAGS
    torch.set_num_threads(recipe.threads)
    run = build(config)
    stock_ctc.train(run, recipe, clock, stock_log_mels=stock_log_mels)
    return len(run.train)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2 where the configuration or its data are at fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arm", choices=("A", "B", "C"), help="see train_ctc_to_quality.py")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--target", type=float, required=True, help="CER, percent")
    parser.add_argument("--stock_log_mels", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    from training.config.load import load_config
    from training.decoding.quiet import quiet

    quiet()
    config, clock = load_config(args.config, args.overrides), EvaluationClock(args.target)
    begun = time.perf_counter()
    if args.arm == "C":
        utterances = ours(config, clock)
    else:
        utterances = stock(config, clock, args.arm, stock_log_mels=args.stock_log_mels)
    found = {
        "prepared": clock.prepared,
        "wall": time.perf_counter() - begun,
        "utterances": utterances,
        "weights": clock.weights,
        "curve": clock.curve,
    }
    args.output.write_text(json.dumps(found), encoding="utf8")
    return 0


if __name__ == "__main__":
    exit_on_user_error(main)
