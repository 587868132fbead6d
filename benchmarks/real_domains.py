"""Two real populations: a Whisper from scratch on adults, adapted to adults and children, on unheard speakers.

    python benchmarks/real_domains.py [--speech DIR] [--epochs 14] [--adapt_epochs 6] [key=value …]

``DIR`` (or the variable ``POLYVOX_SPEECH``) holds one folder per corpus with a ``manifest.tsv`` and its audio; where
there is none the benchmark says so and ends well. The commands are those of ``docs/domains.md``: split (by speakers),
base, adaptation, both evaluations with the swap test, comparison with its verdict. Splits, runs and scores go to
``--work``; a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_speech import ROOT, corpus, curve, listed, options, polyvox, show_curve, train

FROM_SCRATCH = (
    "model.sizes.dropout=0.1",
    "audio.max_length_seconds=15",
    "training.max_batch_seconds=15",
    "training.learning_rate=1.5e-3",
)
"""Little speech of many speakers: more steps than the synthesised corpus needs, and something against reciting."""

SHORT = "evaluation.max_new_tokens=100"
"""The longest sentence has 61 characters; a model that has learnt little would go on to the end of the context."""


def split(source: Path, work: Path) -> Path:
    """Folder of train, dev and test, no speaker in two of them."""
    splits = work / "splits"
    if not (splits / "splits.json").is_file():
        manifest = listed(source, work)
        polyvox(
            *("split", "--manifest", manifest, "--output_dir", splits),
            *("--by", "speaker", "--ratios", "70/10/20"),
        )
    return splits


def trained(splits: Path, outputs: Path, args: argparse.Namespace) -> None:
    """``outputs/base`` from the first population, ``outputs/adapted`` from the base and both populations."""
    shared = [f"paths.splits_dir={splits}", f"model.language={args.language}", SHORT, *args.others]
    train(
        outputs / "base",
        *("--config", ROOT / "configs" / "demo_domain_base.yaml", f"data.domains=[{args.domain}]"),
        *(f"training.num_train_epochs={args.epochs}", *FROM_SCRATCH, *shared),
    )
    train(
        outputs / "adapted",
        *("--config", ROOT / "configs" / "demo_domain_whisper.yaml", f"model.name={outputs / 'base'}"),
        f"model.domains=[{args.domain}, {args.target}]",
        f"training.metric_for_best_model=cer_{args.target}",
        *(f"training.num_train_epochs={args.adapt_epochs}", *shared),
    )


def judged(outputs: Path, target: str) -> Path:
    """Scores of both runs on the test split, the swap test, the comparison and its verdict; their folder."""
    results = outputs / "results"
    for name, more in (("base", []), ("adapted", ["--swap_test"])):
        polyvox("evaluate", "--model_dir", outputs / name, "--output", results, "--name", name, *more)
    tables = [results / f"{name}_predictions.csv" for name in ("base", "adapted")]
    verdict = ["--target", target, "--margin", "1.0", "--output", results / "judged.json", "--force"]
    polyvox("compare", *tables, *verdict)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """0; 0 too where there is no speech; the status of a command that fails."""
    parser = options(__doc__, "speechocean762")
    parser.add_argument("--language", default="en")
    parser.add_argument("--domain", default="adult", help="what the base learns from (adult)")
    parser.add_argument("--target", default="child", help="what it is adapted to (child)")
    parser.add_argument("--epochs", type=float, default=14, help="of the base (14)")
    parser.add_argument("--adapt_epochs", type=float, default=6, help="of the adaptation (6)")
    args = parser.parse_args(argv)
    source = corpus(args.speech, args.corpus)
    if source is None:
        return 0
    work = args.work.resolve() / f"{args.corpus}_domains"
    outputs = work / "outputs"
    trained(split(source, work), outputs, args)
    results = judged(outputs, args.target)
    curves: dict[str, Any] = {name: curve(outputs, name) for name in ("base", "adapted")}
    for name, points in curves.items():
        show_curve(name, points)
    target = results / "curves.json"
    target.write_text(json.dumps(curves, indent=2) + "\n", encoding="utf8")
    print(f"written: {results}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
