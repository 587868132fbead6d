"""``polyvox tune``: search for better settings of a configuration; trials are runs, scored on the dev split."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.api.process import share_the_cores
from training.api.runs import check_reporters
from training.base.errors import INTERRUPTED, UserError
from training.cli.command_line import Parser
from training.cli.options import add_hardware, hardware_override
from training.cli.train import say
from training.tuning import checks, results, space
from training.tuning import study as studies

if TYPE_CHECKING:
    import optuna

    from training.config.schema import Config
    from training.tuning.study import Setup
    from training.tuning.trials import Outcome

PRUNE_AFTER = 4
HOPELESS = 3
"""So many trials that fail with the same words, while none has come to its end, end the study."""
Report = Callable[[str], None]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox tune", description=__doc__)
    result.add_argument("--config", type=Path, required=True, help="YAML file around which is searched")
    result.add_argument(
        "--trials", type=_count, default=20, help="trials in all, with those that are there (default: 20)"
    )
    result.add_argument(
        "--search",
        nargs="+",
        action="extend",
        metavar="KEY=RANGE",
        help=f"{space.GRAMMAR}; KEY=VALUE sets a key for all trials (default: learning rate, warm-up, weight decay "
        "and dropout around the configuration's)",
    )
    add_hardware(result)
    result.add_argument("--output", type=Path, help="the study's folder (default: output.dir with _tune)")
    result.add_argument(
        "--keep", action="store_true", help="keep the weights of every trial, not of the best alone"
    )
    result.add_argument("--fresh", action="store_true", help="remove the study that the folder holds first")
    result.add_argument(
        "--prune_after",
        type=_count,
        default=PRUNE_AFTER,
        metavar="TRIALS",
        help=f"end trials that lag behind the median once so many are complete (default: {PRUNE_AFTER})",
    )
    result.add_argument("--no_pruning", action="store_true", help="every trial goes its whole way")
    result.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.max_steps=500")
    return result


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got {text})")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: all trials are there; 2: the user's mistake; 128 + n: signal n."""
    args = parser().parse_intermixed_args(argv)
    studies.require_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("polyvox tune runs in one process; start it without a launcher")
    share_the_cores()
    dimensions, fixed = space.parse(args.search or ())
    overrides = [*hardware_override(args), *args.overrides, *fixed]
    config = checks.tunable(args.config, overrides)
    check_reporters(config.training.report_to)
    folder = args.output or config.output.dir.with_name(f"{config.output.dir.name}_tune")
    if not dimensions:
        stored = None if args.fresh else studies.stored_search(folder)
        dimensions = space.parse(stored)[0] if stored else checks.default_space(config)
    dimensions = checks.check_space(args.config, overrides, dimensions, config)
    setup = make_setup(args.config, overrides, config, dimensions, folder)
    check_data(setup)
    with studies.locked(folder):
        if args.fresh:
            studies.clear(folder)
        return tune(studies.open_study(setup), setup, args)


def make_setup(
    path: Path, overrides: Sequence[str], config: Config, dimensions: Sequence[space.Dimension], folder: Path
) -> Setup:
    """All that the trials share."""
    from training.config.arguments import training_arguments

    arguments = training_arguments(config)
    return studies.Setup(
        path=path,
        overrides=tuple(overrides),
        config=config,
        dimensions=tuple(dimensions),
        folder=folder,
        metric=arguments["metric_for_best_model"],
        greater_is_better=arguments["greater_is_better"],
    )


def tune(study: optuna.Study, setup: Setup, args: argparse.Namespace) -> int:
    """Trials until there are as many as wanted; then, or when it is stopped, the summary."""
    from training.decoding.quiet import quiet
    from training.engine.fit import Stopped

    quiet()
    study.pruner = pruner(args)
    status = 0
    try:
        announce(study, setup, args.trials)
        search(study, setup, args.trials, keep=args.keep)
    except Stopped as stopped:
        status = 128 + stopped.number
    except KeyboardInterrupt:
        status = INTERRUPTED
    except SystemExit as left:  # a second signal, which did not wait for the step's end
        if not isinstance(left.code, int) or left.code <= 128:
            raise
        status = left.code
    finally:
        results.write_table(study, setup)
    if status:
        name = signal.Signals(status - 128).name
        say(
            f"{name}: {len(studies.finished(study))} of {args.trials} trials are finished; the same command goes on"
        )
        return status
    for line in results.summary(study, setup):
        say(line)
    return 0


def pruner(args: argparse.Namespace) -> optuna.pruners.BasePruner:
    """Ends a trial whose best score is worse than the median of the others at the same evaluation."""
    import optuna

    if args.no_pruning:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=args.prune_after)


def announce(study: optuna.Study, setup: Setup, wanted: int) -> None:
    """What is searched and how far it is."""
    done = len(studies.finished(study))
    aim = "highest" if setup.greater_is_better else "lowest"
    say(f"{setup.folder}: the {aim} {setup.metric} on the dev split, {done} of {wanted} trials are finished")
    for one in setup.dimensions:
        say(f"  {checks.described(one)}")


def check_data(setup: Setup) -> None:
    """`UserError` before the first trial where the manifests cannot be read; the test split is never opened."""
    from training.engine.run import open_split

    for split in ("train", "dev"):
        if open_split(setup.config, split) is None:
            raise UserError(f"data.{split}: trials need it, and the configuration names none")


def search(study: optuna.Study, setup: Setup, wanted: int, *, keep: bool) -> None:
    """Trial after trial, until so many are finished."""
    from training.tuning.trials import run_trial

    while len(studies.finished(study)) < wanted:
        trial = studies.next_trial(study, setup)
        again = trial.user_attrs.get(studies.AGAIN_OF)
        say(
            f"trial {trial.number}{'' if again is None else f' (again {again})'}: {', '.join(results.drawn(setup, trial.params))}"
        )
        try:
            ended = run_trial(study, trial, setup, say)
        finally:
            if not keep:
                tidy(study, setup)
        say(f"trial {trial.number}: {ending(ended, setup)}")
        results.write_table(study, setup)
        results.write_best(study, setup)
        give_up_when_hopeless(study, setup)


def ending(ended: Outcome, setup: Setup) -> str:
    """``complete, eval_wer 0.2500`` or ``diverged, the loss is …``."""
    told = ended.reason if ended.value is None else f"{setup.metric} {ended.value:.4f}"
    return f"{ended.kind}, {told}" if told else ended.kind


def tidy(study: optuna.Study, setup: Setup) -> None:
    """Remove the weights of all trials but the best."""
    from training.tuning.trials import remove_weights

    best = studies.best_trial(study)
    for trial in study.get_trials(deepcopy=False):
        if best is None or trial.number != best.number:
            remove_weights(setup.trial_folder(trial.number))


def give_up_when_hopeless(study: optuna.Study, setup: Setup) -> None:
    """`UserError` when the last trials failed with the same words and none is complete: so will the next."""
    last = studies.finished(study)[-HOPELESS:]
    reasons = {
        one.user_attrs.get(studies.REASON, "").replace(str(setup.trial_folder(one.number)), "")
        for one in last
    }
    if len(last) < HOPELESS or len(reasons) > 1 or {studies.outcome(one) for one in last} != {studies.FAILED}:
        return
    if studies.best_trial(study) is None:
        raise UserError(
            f"{HOPELESS} trials failed alike, and none is complete: {reasons.pop()}; see {setup.log(last[-1].number)}"
        )
