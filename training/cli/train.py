"""``polyvox train``: train the model that a configuration describes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.config.compat import guide_flags
from training.errors import UserError, exit_on_user_error


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
    if args.accept_changed_data and args.resume is None:
        raise UserError("--accept_changed_data belongs to --resume; a run that starts has no data of before")
    share_the_cores()
    from training.config.load import load_config

    file = guide_flags.config_file(args)
    config = load_config(file, [*guide_flags.overrides(args), *args.overrides])
    if config.model is None:
        raise UserError(f"{file}: no model: block; see docs/configuration.md")
    check_reporters(config.training.report_to)
    for note in guide_flags.notes(args):
        say(note)
    if args.dry_run:
        from training.planning.dry_run import dry_run

        return dry_run(config)
    return _train(config, args)


def share_the_cores() -> None:
    """Between the threads of the libraries and the data workers; before torch is imported, which reading a configuration does."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait take the cores from the workers that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def check_reporters(named: str | Sequence[str]) -> None:
    """`UserError` for a tool that is to draw curves and is not installed (a finished run needs none)."""
    asked = {named} if isinstance(named, str) else set(named)
    if not (asked := asked - {"none", "all"}):
        return
    from transformers import integrations

    missing = sorted(asked - set(integrations.get_available_reporting_integrations()))
    if missing:
        raise UserError(
            f"training.report_to: {missing[0]} is not installed, or switched off in the environment; "
            f"pip install {missing[0]}, or leave it out"
        )


def say(text: str) -> None:
    """Print at once, also into a file or a pipe: somebody is watching a long run. Of several ranks the first speaks."""
    from training.engine.folder import first_rank

    if first_rank():
        print(text, flush=True)


class Reporter:
    """`say`, and into the log file where there is one.

    ``held``: lines for the file are kept until `release`; a file inside the run's folder is not there before the run is.
    """

    def __init__(self, log_file: Path | None, *, held: bool = False) -> None:
        self.log_file, self.held = log_file, held
        self.waiting: list[str] = []

    def __call__(self, text: str) -> None:
        say(text)
        if self.log_file is not None:
            self.waiting.append(text)
            if not self.held:
                self.release()

    def release(self) -> None:
        """Write what was held back, and every further line at once."""
        self.held = False
        lines, self.waiting = self.waiting, []
        if self.log_file is not None and lines:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("a", encoding="utf8") as file:
                file.writelines(f"{line}\n" for line in lines)


def _train(config: object, args: argparse.Namespace) -> int:
    from training.config.schema import Config
    from training.decoding.quiet import quiet
    from training.engine import checkpoint
    from training.engine.fit import Stopped, fit
    from training.engine.folder import check_folder, check_model, check_origin
    from training.engine.run import build

    assert isinstance(config, Config)
    quiet()
    folder, log = config.output.dir, config.output.log_file
    inside = log is not None and log.resolve().is_relative_to(folder.resolve())
    report = Reporter(log, held=inside and args.resume is None)
    resume = checkpoint.find(folder, args.resume or None, report) if args.resume is not None else None
    check_folder(folder, resume=resume, fresh=args.fresh)
    if args.fresh:
        check_origin(config)
    if resume is not None:
        check_model(config, folder)
    # Adapters alone are in a LoRA checkpoint: its base is built as the first time.
    source = None if config.training.trainable == "lora" else resume
    run = build(config, source=source, report=report)
    try:
        results = fit(
            run,
            resume=resume,
            fresh=args.fresh,
            accept_changed_data=args.accept_changed_data,
            claimed=report.release,
            report=report,
        )
    except Stopped as stopped:
        print(f"{stopped}: saved in {folder}; go on with --resume")
        return 128 + stopped.number
    print(f"{folder}: {results['steps']} steps in {results['train_seconds'] / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    exit_on_user_error(main)
