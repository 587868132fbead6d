"""``polyvox train``: train the model that a configuration describes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.api.process import share_the_cores
from training.api.runs import check_reporters, train
from training.base.errors import UserError, first_rank, shown
from training.config.compat import guide_flags

if TYPE_CHECKING:
    from training.config.schema import Config


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox train", description=__doc__, allow_abbrev=False)
    result.add_argument(
        "--config", type=Path, help="YAML file, see configs/ and docs/configuration.md; or --model NAME"
    )
    result.add_argument(
        "--dry_run", action="store_true", help="answer whether the run will work; writes nothing"
    )
    result.add_argument(
        "--download",
        action="store_true",
        help="with --dry_run: fetch pretrained weights that are not here, so that a step can be tried",
    )
    result.add_argument(
        "--resume",
        nargs="?",
        const="",
        default=None,
        metavar="CHECKPOINT",
        help="go on from this checkpoint folder, or from the run's newest whole one",
    )
    result.add_argument(
        "--accept_changed_data",
        action="store_true",
        help="with --resume: go on although the utterances are not those that the run was trained on",
    )
    result.add_argument(
        "--fresh", action="store_true", help="remove what an earlier run left in output.dir first"
    )
    result.add_argument(
        "--smoke",
        action="store_true",
        help="100 steps instead of num_train_epochs, in the folder NAME_smoke: whether everything works together (key=value "
        "still decides)",
    )
    guide_flags.add_to(result)
    result.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.learning_rate=1e-5")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: done or valid; 2: the user's mistake; 3: a dry run that does not fit; 128 + n: signal n."""
    args = parser().parse_intermixed_args(argv)
    if args.resume and "=" in args.resume and not Path(args.resume).exists():
        args.overrides, args.resume = [args.resume, *args.overrides], ""
    if args.resume is not None and args.fresh:
        raise UserError("--resume and --fresh contradict each other")
    if args.download and not args.dry_run:
        raise UserError("--download belongs to --dry_run; a run fetches what it needs in any case")
    if args.accept_changed_data and args.resume is None:
        raise UserError("--accept_changed_data belongs to --resume; a run that starts has no data of before")
    share_the_cores()
    from training.config.arguments import SMOKE
    from training.config.load import load_config

    file = guide_flags.config_file(args)
    smoke = SMOKE if args.smoke else ()
    config = load_config(file, [*smoke, *guide_flags.overrides(args), *args.overrides])
    if config.model is None:
        raise UserError(f"{file}: no model: block; see docs/configuration.md")
    check_reporters(config.training.report_to)
    for note in guide_flags.notes(args):
        say(note)
    if args.dry_run:
        from training.planning.dry_run import dry_run

        return dry_run(config, download=args.download)
    return _train(config, args)


def say(text: str) -> None:
    """Print at once, also into a file or a pipe: somebody is watching a long run. Of several ranks the first speaks."""
    if first_rank():
        print(text, flush=True)


def _train(config: Config, args: argparse.Namespace) -> int:
    from training.engine.fit import Stopped

    resume = False if args.resume is None else args.resume or True
    with shown():
        try:
            run = train(config, resume=resume, fresh=args.fresh, accept_changed_data=args.accept_changed_data)
        except Stopped as stopped:
            print(f"{stopped}: saved in {config.output.dir}; go on with --resume")
            return 128 + stopped.number
    print(f"{run.folder}: {run.results['steps']} steps in {run.results['train_seconds'] / 60:.1f} min")
    return 0
