"""Evaluation of a Whisper on two tasks: features, generation, decoding, scoring, by stock transformers and by us.

    python benchmarks/evaluate_two_tasks.py --model_dir outputs/demo_whisper_full --manifest data/demo/splits/test.tsv \\
        --audio_root data/demo [--clips 200] [--output evaluate.json]

Arms, interleaved, each in a process of its own; the time begins when the model is loaded:
A: `stock_evaluate`. B: the same with ``--best``. F: `our_evaluate` at 30 s. C: `our_evaluate` on trimmed contexts.
Greedy, float32, the same bound on new tokens. The folder must hold a model that knows both contexts (one that was
trained with ``model.full_context_share``): a model that has never heard 30 s of context rambles in A, B and F.

Quality gate: F's hypotheses are B's, letter by letter, for both tasks, and C's WER and BLEU are no worse than B's by more
than ``--slack`` points; all arms are scored alike (lower case, jiwer, sacrebleu) once their clocks have stopped.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import Figures, Round, command_line, count, finish, in_turns, ratio, table, values
from stock_evaluate import scores
from stock_recipe import TASKS
from whisper_runs import flags, references, run, spread_clips

from training.base.errors import exit_on_user_error

ARMS = {
    "A": ("stock_evaluate.py", []),
    "B": ("stock_evaluate.py", ["--best"]),
    "F": ("our_evaluate.py", ["--context", "full"]),
    "C": ("our_evaluate.py", ["--context", "trimmed"]),
}
PHASES = ("prepare", "generate", "score", "seconds")


def main(argv: Sequence[str] | None = None) -> int:
    """1 where the gate is shut."""
    parser = command_line(__doc__)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True, help="a test split with both texts")
    parser.add_argument("--audio_root", type=Path, required=True)
    parser.add_argument("--clips", type=count, default=200)
    parser.add_argument("--language", default="vi")
    parser.add_argument("--max_new_tokens", type=count, default=80)
    parser.add_argument(
        "--slack", type=float, default=1.0, help="points of WER and of BLEU that C may be worse by"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="B, F and C at least")
    args = parser.parse_args(argv)
    if not set("BFC") <= set(args.arms):
        parser.error("--arms: B, F and C are what the gate compares")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clips = spread_clips(args.manifest, args.audio_root, args.language, args.clips, work / "clips.tsv")
        rounds = in_turns({name: partial(arm, name, args, clips, work) for name in args.arms}, args.repeats)
    return report(args, rounds)


def arm(name: str, args: argparse.Namespace, clips: Path, work: Path, number: int) -> Figures:
    """One evaluation."""
    script, more = ARMS[name]
    options = {
        "model": args.model_dir.resolve(),
        "manifest": clips,
        "root": args.audio_root.resolve(),
        "language": args.language,
        "max_new_tokens": args.max_new_tokens,
    }
    found = run(script, work / name, *flags(options), *more)
    # By one measure, whatever each side makes of its own hypotheses on the clock.
    return {**found, "own_scores": found["scores"], "scores": scores(found["hypotheses"], references(clips))}


def report(args: argparse.Namespace, rounds: Sequence[Round]) -> int:
    """Table, ratios behind the gate, JSON."""
    same, failures = gate(rounds, args.slack)
    ratios = {} if failures else {name: ratio(rounds, "seconds", "B", name) for name in rounds[0].arms}
    lines = []
    for name in rounds[0].arms:
        said = rounds[0].arms[name]["scores"]
        lines.append(
            [
                name,
                *(f"{values(rounds, name, phase):.1f}" for phase in PHASES),
                f"{said['wer']:.1f}",
                f"{said['bleu']:.1f}",
                f"{ratios[name]:.2f}" if name in ratios else "",
            ]
        )
    print(f"{args.clips} clips, both tasks; hypotheses of F that are B's: {same:.1%}")
    print(table(["arm", "prepare s", "generate s", "score s", "all s", "WER", "BLEU", "times B"], lines))
    return finish(
        args.output,
        args,
        rounds,
        failures,
        same=same,
        ratios={name: vars(one) for name, one in ratios.items()},
    )


def gate(rounds: Sequence[Round], slack: float) -> tuple[float, list[str]]:
    """Share of hypotheses that are stock's, and why no ratio is worth printing."""
    failures = []
    counts = {len(said) for one in rounds for arm in "BF" for said in one.arms[arm]["hypotheses"].values()}
    if len(counts) > 1:
        return 0.0, [f"B and F do not score the same clips: {' and '.join(map(str, sorted(counts)))} of them"]
    pairs = [
        pair
        for one in rounds
        for task in TASKS
        for pair in zip(one.arms["B"]["hypotheses"][task], one.arms["F"]["hypotheses"][task], strict=True)
    ]
    same = sum(stock == ours for stock, ours in pairs) / len(pairs)
    if same < 1:
        stock, ours = next(pair for pair in pairs if pair[0] != pair[1])
        failures.append(f"{1 - same:.2%} of F's hypotheses are not B's: {ours!r} for {stock!r}")
    stock_scores, our_scores = (rounds[0].arms[name]["scores"] for name in "BC")
    for score, better in (("wer", -1), ("bleu", 1)):
        worse = better * (stock_scores[score] - our_scores[score])
        if not worse <= slack:
            failures.append(f"C's {score.upper()} is {worse:.1f} points worse than B's")
    return same, failures


if __name__ == "__main__":
    exit_on_user_error(main)
