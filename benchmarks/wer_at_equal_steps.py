"""WER and BLEU after as many steps of fine-tuning: stock transformers with its best flags, and this library.

    python benchmarks/wer_at_equal_steps.py --model_dir outputs/demo_whisper_full --train data/demo/splits/train.csv \\
        --test data/demo/splits/test.csv --audio_root data/demo [--steps 200] [--output equal_steps.json]

Both begin with the same folder and hear the same clips for both tasks, `--batch` rows (clip × task) a step, with the same
optimiser and learning rates, a seed a round. B: `stock_recipe.py --best`, every clip padded to 30 s (its loss counts the prompt
too, see there). C: `our_recipe.py` on trimmed contexts with the shipped share of full ones. The models of both are then heard
at 30 s (``full``; the hypotheses of the two evaluations are the same letter by letter, see `evaluate_two_tasks.py`), ours on
trimmed contexts as well (``trimmed``), which is how it is used; ``start`` is the folder before. All hypotheses are scored alike.
The folder should know both contexts (``model.full_context_share``): the two lines of ``start`` say whether it does.

Gate, of the models at 30 s: C's WER is no higher, and its BLEU no lower, than B's by more than the noise of the seeds (the sum of
both standard deviations). This is no measurement of speed: anything else may run beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common import Figures, Round, command_line, count, finish, gap, in_turns, table, values
from multitask_step import shipped_share
from stock_evaluate import scores
from stock_recipe import TASKS
from whisper_runs import flags, references, run, spread_clips, step_rows

from training.base.errors import exit_on_user_error

SCORES = ("wer", "cer", "bleu", "chrf")
CONTEXTS = ("full", "trimmed")


def main(argv: Sequence[str] | None = None) -> int:
    """1 where the gate is shut."""
    args = options().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trained = args.steps * args.batch // len(TASKS)
        choose = partial(spread_clips, audio_root=args.audio_root, language=args.language)
        train = choose(args.train, wanted=trained, path=work / "train.tsv")
        test = choose(args.test, wanted=args.clips, path=work / "test.tsv")
        begun = args.model_dir.resolve()
        start = {name: said(begun, name, args, test, work) for name in CONTEXTS}
        rounds = in_turns({name: partial(arm, name, args, train, test, work) for name in "BC"}, args.repeats)
    heard = [replace(one, arms=by_context(one.arms)) for one in rounds]
    failures = gate(heard)
    print(f"{args.steps} steps of {args.batch} rows, {args.clips} test clips")
    rows = [[f"start {name}", *(f"{found[score]:.1f}" for score in SCORES)] for name, found in start.items()]
    rows += [[name, *(f"{values(heard, name, score):.1f}" for score in SCORES)] for name in heard[0].arms]
    print(table(["", "WER", "CER", "BLEU", "chrF"], rows))
    gaps = {score: difference(heard, score) for score in ("wer", "bleu")} if len(heard) > 1 else {}
    for score, (more, noise) in gaps.items():
        print(f"C - B at 30 s: {more:+.1f} points of {score.upper()}, the seeds' noise is {noise:.1f}")
    return finish(args.output, args, heard, failures, start=start, gaps=gaps)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--model_dir", type=Path, required=True, help="a Whisper that knows both contexts")
    add("--train", type=Path, required=True, help="a manifest with both texts")
    add("--test", type=Path, required=True, help="one of other clips")
    add("--audio_root", type=Path, help="what their audio_path is relative to")
    add("--steps", type=count, default=200)
    add("--batch", type=step_rows, default=8, help="rows (clips × tasks) of a step")
    add("--clips", type=count, default=100, help="of the test split")
    add("--learning_rate", type=float, default=1e-3)
    add("--language", default="vi")
    add("--max_new_tokens", type=count, default=80)
    return parser


def arm(name: str, args: argparse.Namespace, train: Path, test: Path, work: Path, number: int) -> Figures:
    """One fine-tuning and the scores of its model; the seed is the round's."""
    kept = work / f"{name}_{number}"
    same = {
        "model": args.model_dir.resolve(),
        "manifest": train,
        "root": work,
        "steps": args.steps,
        "batch": args.batch,
        "learning_rate": args.learning_rate,
        "seed": number,
        "keep": kept,
    }
    if name == "B":
        run("stock_recipe.py", work / name, *flags(same), "--best")
        return {"full": said(kept, "full", args, test, work)}
    run("our_recipe.py", work / name, *flags(same), "--full_share", shipped_share())
    return {how: said(kept, how, args, test, work) for how in CONTEXTS}


def said(model: Path, context: str, args: argparse.Namespace, test: Path, work: Path) -> dict[str, float]:
    """Scores of what a folder says of the test clips, both tasks, greedy."""
    asked = {"model": model, "manifest": test, "root": work, "language": args.language}
    asked |= {"max_new_tokens": args.max_new_tokens, "context": context}
    found = run("our_evaluate.py", work / "scoring", *flags(asked))
    return scores(found["hypotheses"], references(test))


def by_context(arms: Mapping[str, Figures]) -> dict[str, Figures]:
    """The scores of each arm in each context that it was heard in, as arms of their own."""
    return {f"{name} {how}": scores for name, found in arms.items() for how, scores in found.items()}


def difference(rounds: Sequence[Round], score: str) -> tuple[float, float]:
    """C's mean less B's, both at 30 s, and the noise of the seeds."""
    return gap(rounds, score, "C full", "B full")


def gate(rounds: Sequence[Round]) -> list[str]:
    """Why the claim does not stand."""
    if len(rounds) < 2:
        return ["one round has no noise of seeds to hold the scores against"]
    failures = []
    for score, better in (("wer", -1), ("bleu", 1)):
        more, noise = difference(rounds, score)
        if -better * more > noise:
            failures.append(
                f"{score.upper()} is worse than B's by {abs(more):.1f}, the seeds' noise is {noise:.1f}"
            )
    return failures


if __name__ == "__main__":
    exit_on_user_error(main)
