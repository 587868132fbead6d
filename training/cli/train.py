"""``polyvox train``: train the model that a configuration describes."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.api.process import share_the_cores
from training.api.runs import check_reporters, train
from training.base.errors import UserError, first_rank, shown
from training.cli.after_training import evaluate_and_publish, owner_on_the_hub
from training.cli.command_line import Parser
from training.cli.options import add_hardware, count
from training.config.compat import guide_flags

if TYPE_CHECKING:
    from training.config.schema import Config

ALL = -1
"""Value of ``--multi_gpu`` without a number."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox train", description=__doc__)
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
    add_hardware(result)
    result.add_argument(
        "--multi_gpu",
        nargs="?",
        type=count,
        const=ALL,
        default=None,
        metavar="N",
        help="start N processes, one for each GPU (default: all GPUs of this machine)",
    )
    result.add_argument(
        "--language",
        metavar="CODE",
        help="what is spoken in rows that name no language (ISO 639): the same as model.language; default: what the "
        "configuration says, else what the letters of the texts show",
    )
    guide_flags.add_to(result)
    result.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.learning_rate=1e-5")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: done or valid; 2: the user's mistake; 3: a dry run that does not fit; 128 + n: signal n."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_intermixed_args(given)
    _tell_apart(args)
    _check(args)
    share_the_cores()
    from training.api.runs import load_config
    from training.config.arguments import SMOKE

    file = guide_flags.config_file(args)
    smoke = SMOKE if args.smoke else ()
    overrides = [*smoke, *guide_flags.overrides(args), *args.overrides]
    if args.language:
        overrides.append(_language(load_config(file, overrides, hardware=args.hardware), args.language))
    with shown():
        config = load_config(file, overrides, hardware=args.hardware)
    if config.model is None:
        raise UserError(f"{file}: no model: block; see docs/configuration.md")
    if not args.dry_run and config.data.source.missing("train") is not None:
        config.data.source.open("train")  # says what is missing, before anything heavy is imported
    check_reporters(config.training.report_to)
    for note in guide_flags.notes(args):
        say(note)
    if args.dry_run:
        from training.planning.dry_run import dry_run

        return dry_run(config, download=args.download)
    if args.multi_gpu is not None and "RANK" not in os.environ:
        return _in_processes(config, args.multi_gpu, given)
    return _train(config, args, given)


def _language(config: Config, code: str) -> str:
    """``--language`` as the override that this kind of model has for it."""
    from training.engine.spoken_language import language_key

    key = None if config.model is None else language_key(config.model)
    if key is None:
        raise UserError(f"--language {code}: a model of this type is told no language; leave it out")
    return f"model.{key}={f'[{code}]' if key == 'languages' else code}"


def _tell_apart(args: argparse.Namespace) -> None:
    """An option whose value may be left out takes the word behind it, which may be a ``key=value``."""
    if args.resume and "=" in args.resume and not Path(args.resume).exists():
        args.overrides, args.resume = [args.resume, *args.overrides], ""


def _check(args: argparse.Namespace) -> None:
    """`UserError` for options that contradict each other."""
    if args.resume is not None and args.fresh:
        raise UserError("--resume and --fresh contradict each other")
    if args.download and not args.dry_run:
        raise UserError("--download belongs to --dry_run; a run fetches what it needs in any case")
    if args.accept_changed_data and args.resume is None:
        raise UserError("--accept_changed_data belongs to --resume; a run that starts has no data of before")


def _in_processes(config: Config, wanted: int, given: Sequence[str]) -> int:
    """The same command in several processes."""
    from training.config.hardware import look
    from training.recipes.ranks import run_ranks

    gpus = look().gpus
    number = gpus if wanted == ALL else wanted
    if config.profile.device != "cpu" and number > gpus:
        raise UserError(
            f"--multi_gpu{'' if wanted == ALL else f' {wanted}'}: this machine shows {gpus} GPUs (polyvox doctor says why); "
            "for processes on the CPU: --hardware cpu --multi_gpu N"
        )
    if number < 1:
        raise UserError(
            "--multi_gpu: this machine shows no GPU; give the number of processes (--multi_gpu 2)"
        )
    say(f"{number} processes")
    return run_ranks(["train", *_single(given)], number)


def _single(given: Sequence[str]) -> list[str]:
    """The command line without ``--multi_gpu`` and its number."""
    words, kept = iter(enumerate(given)), []
    for place, word in words:
        if word.partition("=")[0].replace("-", "_") != "__multi_gpu":
            kept.append(word)
        elif "=" not in word and given[place + 1 : place + 2] and given[place + 1].isdecimal():
            next(words)
    return kept


def say(text: str) -> None:
    """Print at once, also into a file or a pipe: somebody is watching a long run. Of several ranks the first speaks."""
    if first_rank():
        print(text, flush=True)


def _train(config: Config, args: argparse.Namespace, given: Sequence[str]) -> int:
    from training.engine.fit import Stopped

    resume = False if args.resume is None else args.resume or True
    owner = owner_on_the_hub() if args.login_hf else ""
    with shown():
        try:
            run = train(config, resume=resume, fresh=args.fresh, accept_changed_data=args.accept_changed_data)
        except Stopped as stopped:
            say(f"{stopped}: saved in {config.output.dir}; go on with --resume:")
            say(f"  {again(given)}")
            return 128 + stopped.number
    say(f"{run.folder}: {run.results['steps']} steps in {run.results['train_seconds'] / 60:.1f} min; next:")
    for command in next_commands(config):
        say(f"  {command}")
    return evaluate_and_publish(config, run.folder, owner) if args.login_hf and first_rank() else 0


def again(given: Sequence[str]) -> str:
    """The same command with ``--resume``, to be pasted."""
    words, kept = iter(given), []
    for word in words:
        if word.partition("=")[0] not in ("--resume", "--fresh"):
            kept.append(word)
        elif word == "--resume" and (value := next(words, None)) and (value.startswith("-") or "=" in value):
            kept.append(value)  # it was no checkpoint
    return shlex.join(["polyvox", "train", *kept, "--resume"])


def next_commands(config: Config) -> list[str]:
    """What is done with a finished run, to be pasted."""
    folder, outputs = config.output.dir, config.output.dir.parent
    elsewhere = outputs != Path("outputs")
    results = f" --output {shlex.quote(str(outputs / 'results'))}" if elsewhere else ""
    place = f" --outputs {shlex.quote(str(outputs))}" if elsewhere else ""
    return [f"polyvox evaluate --model {shlex.quote(str(folder))}{results}", f"polyvox charts{place}"]
