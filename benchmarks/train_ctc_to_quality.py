"""Time to a fixed character error rate: CTC from scratch by `polyvox train` and by transformers' stock Trainer.

    python benchmarks/train_ctc_to_quality.py [--corpus digits] [--repeats 3] [--output to_quality.json]

Each round is a seed; each arm is a process of its own and ends at the target or with its schedule. **A**: the
libraries' defaults. **B**: their flags for speed (`stock_ctc.py`). **C**: the shipped configuration. All have two
cores, the same module, first weights, vocabulary, utterances, epochs and mean number of clips per step; the
learning rate's peak and warm-up, AdamW's settings and the steps of evaluation are the configuration's. C alone has what
stock has no flag for: augmentation and its wait, the loss half way up the encoder, averaged weights, batches by duration.

The clock runs from the list of audio files (A, B: `datasets.map` included) or from the reading of the manifests (C)
to the first evaluation whose CER on the dev split is at the target, and stands while a model is evaluated. Imports
are not on it, nor what A and B take over from us: the choice of the utterances and the making of the model. No ratio
is printed for an arm that begins with other weights or misses the target in any seed.

``digits`` is ``fsdd`` in the folder of real speech (``--speech`` or ``POLYVOX_SPEECH``; left out where it is absent),
``demo`` is `polyvox demo-data`, made once in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import common
import real_speech

from training.api.process import share_the_cores
from training.base.errors import UserError, exit_on_user_error

TARGETS = {"digits": 5.0, "demo": 10.0}
"""CER in percent."""


@dataclass(frozen=True)
class Corpus:
    """A shipped configuration, the overrides that give it data, and the CER to come to."""

    config: Path
    data: tuple[str, ...]
    target: float


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where the gate keeps a ratio back; 2 where the configuration or its data are at fault."""
    args = options().parse_intermixed_args(argv)
    chosen = [name for name in TARGETS if args.corpus in (None, name)]
    share_the_cores()  # the arms inherit it
    if any(further < target(name, args) for name in chosen for further in args.at):
        raise UserError("--at: the runs end at --target, which must be the lowest")
    made = {name: corpus(name, args) for name in chosen}
    corpora = {name: one for name, one in made.items() if one is not None}
    arms = {
        f"{name} {arm}": partial(one_training, one, arm, args)
        for name, one in corpora.items()
        for arm in args.arms
    }
    if not arms:
        return 0
    rounds = common.in_turns(arms, args.repeats)
    failures, ratios = [], {}
    for name, one in corpora.items():
        named = [f"{name} {arm}" for arm in args.arms]
        for cer in sorted({one.target, *args.at}, reverse=True):
            reached = [replace(turn, arms={arm: at(turn.arms[arm], cer) for arm in named}) for turn in rounds]
            print(f"\nCER {cer:g}\n{table(reached, named)}\n")
            failures += gate(reached, named, cer)
            for key, found in speedups(reached, name, args.arms, cer).items():
                print(f"{key}: {found:.2f} times as long")
                ratios[f"CER {cer:g}, {key}"] = found
    targets = {name: one.target for name, one in corpora.items()}
    return common.finish(args.output, args, rounds, failures, targets=targets, **ratios)


def at(figures: common.Figures, target: float) -> common.Figures:
    """What a training took to its first evaluation with a CER of at most ``target``; ``seconds`` None without one.

    ``slowest``: the longest time of a step between two evaluations on that way, as times the median of them: where it is
    far above 1, the machine did something else.
    """
    curve = figures["curve"]
    good = next((at for at, point in enumerate(curve) if point["cer"] <= target), None)
    way = [{"step": 0, "seconds": figures["prepared"]}, *curve[: None if good is None else good + 1]]
    each = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(way)]
    last, seconds = way[-1], way[-1]["seconds"] - figures["prepared"]
    return {
        **figures,
        "seconds": None if good is None else last["seconds"],
        "steps": last["step"],
        "steps_seconds": seconds,
        "step_ms": 1000 * seconds / last["step"],
        "slowest": max(each) / statistics.median(each),
        "cer": last["cer"],
    }


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.command_line(__doc__)
    speech = os.environ.get("POLYVOX_SPEECH")
    add = parser.add_argument
    add("--corpus", choices=TARGETS, help="this one alone")
    add("--arms", choices=("ABC", "BC"), default="ABC", help="BC: without the libraries' defaults")
    add("--target", type=float, help="CER in percent that ends a run, of every corpus (digits 5, demo 10)")
    add(
        "--at",
        type=float,
        action="append",
        default=[],
        metavar="CER",
        help="the way to this one too; may be repeated",
    )
    add("--first_seed", type=int, default=1, help="seed of the first round (1)")
    add("--evaluations", type=common.count, default=20, help="in a whole schedule, at equal distances (20)")
    add("--stock_log_mels", action="store_true", help="A and B: normalised by band, as transformers has them")
    add("--speech", type=Path, default=Path(speech) if speech else None, help="folder of real speech")
    add("--minutes", type=float, help="length of the demo corpus (that of polyvox demo-data)")
    add("--work", type=Path, default=Path("outputs/train_ctc_to_quality"), help="folder of the demo corpus")
    add("others", nargs="*", metavar="key=value", help="overrides of the configurations, in all arms")
    return parser


def target(name: str, args: argparse.Namespace) -> float:
    """The CER that ends the runs of a corpus."""
    return TARGETS[name] if args.target is None else args.target


def corpus(name: str, args: argparse.Namespace) -> Corpus | None:
    """A corpus that is there, or can be made; None, with the reason on the screen, where it is not."""
    config = common.ROOT / "configs" / f"{name}_ctc.yaml"
    if name == "demo":
        return Corpus(config, (f"paths.splits_dir={demo_splits(args)}",), target(name, args))
    folder = real_speech.corpus(args.speech, "fsdd")
    if folder is None:
        return None
    return Corpus(config, (f"data.manifest={(folder / 'manifest.tsv').resolve()}",), target(name, args))


def demo_splits(args: argparse.Namespace) -> Path:
    """The folder of the demo corpus' parts, which is made where it is missing."""
    length = [] if args.minutes is None else ["--minutes", f"{args.minutes:g}"]
    folder = args.work.resolve() / "_".join(["demo", *length[1:]])
    splits = folder / "splits"
    if not (splits / "train.csv").is_file():
        export, cleaned = folder / "export", folder / "export" / "cleaned.tsv"
        real_speech.polyvox("demo-data", *length, "--output", export, "--force")
        real_speech.polyvox("preprocess", "--input", export / "manifest.tsv", "--output", cleaned)
        real_speech.polyvox("split", "--manifest", cleaned, "--output_dir", splits)
    return splits


def one_training(one: Corpus, arm: str, args: argparse.Namespace, number: int) -> common.Figures:
    """What `train_ctc_arm.py` found; `SystemExit` with its status where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        overrides = [
            *one.data,
            f"output.dir={folder}/run",
            f"training.seed={args.first_seed + number}",
            f"training.eval_steps={1 / args.evaluations:g}",
            *args.others,
        ]
        command = [sys.executable, str(Path(__file__).with_name("train_ctc_arm.py")), arm]
        how = ["--config", str(one.config), "--target", str(one.target), "--output", str(found)]
        stock = ["--stock_log_mels"] if args.stock_log_mels else []
        done = subprocess.run([*command, *how, *stock, *overrides], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        return json.loads(found.read_text(encoding="utf8"))


def gate(rounds: Sequence[common.Round], arms: Sequence[str], target: float) -> list[str]:
    """Why these arms cannot be compared: they began with different things, or one did not come to the target."""
    found = []
    for number, one in enumerate(rounds, start=1):
        chosen = {arm: one.arms[arm] for arm in arms}
        if len({(figures["weights"], figures["utterances"]) for figures in chosen.values()}) > 1:
            found.append(f"round {number}: {', '.join(arms)} begin with different weights or utterances")
        found += [
            f"round {number}: {arm} ends its schedule with CER {figures['cer']:.1f}, {target:g} wanted"
            for arm, figures in chosen.items()
            if figures["seconds"] is None
        ]
    return found


def speedups(rounds: Sequence[common.Round], name: str, arms: str, target: float) -> dict[str, common.Spread]:
    """Times that our training is faster than each stock one that `gate` lets pass, with and without preparation."""
    found = {}
    for arm in arms:
        above, below = f"{name} {arm}", f"{name} C"
        if arm == "C" or gate(rounds, [above, below], target):
            continue
        found[f"{above} / C"] = common.ratio(rounds, "seconds", above, below)
        found[f"{above} / C without preparation"] = common.ratio(rounds, "steps_seconds", above, below)
    return found


def table(rounds: Sequence[common.Round], arms: Sequence[str]) -> str:
    """One line an arm: how often it came to the target, and medians and ranges of what it took."""
    head = [
        "arm",
        "at target",
        "s to target",
        "s of preparation",
        "steps to target",
        "ms per step",
        "slowest",
        "CER there",
    ]
    rows = []
    for arm in arms:
        reached = [one for one in rounds if one.arms[arm]["seconds"] is not None]
        took = [
            f"{common.values(reached, arm, figure):.{digits}f}" if reached else "-"
            for figure, digits in (("seconds", 1), ("prepared", 1), ("steps", 0))
        ]
        each = [f"{common.values(rounds, arm, figure):.1f}" for figure in ("step_ms", "slowest", "cer")]
        rows.append([arm, f"{len(reached)} of {len(rounds)}", *took, *each])
    return common.table(head, rows)


if __name__ == "__main__":
    exit_on_user_error(main)
