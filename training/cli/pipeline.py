"""``polyvox pipeline``: the steps of a recipe; data, both models, scores and charts. What is finished is not done again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.base.errors import UserError
from training.cli.command_line import Parser
from training.cli.options import add_hardware, hardware_override

if TYPE_CHECKING:
    from training.recipes.recipe import Recipe
    from training.recipes.resolve import Run
    from training.recipes.rules import Context
    from training.recipes.tasks import Say
    from training.recipes.walker import Walker

INSTALL = "Install dependencies"
PRETRAINED = ("dev", "cpu")
"""Recipes that begin with pretrained weights."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox pipeline", description=__doc__)
    result.add_argument(
        "--recipe", type=Path, metavar="FILE", help="a recipe of your own (docs/training.md), instead of ours"
    )
    result.add_argument(
        "--stage", choices=("dev", "prod"), help="prod: configs/prod_*, by accelerate; default: dev"
    )
    result.add_argument(
        "--profile",
        choices=("demo", "cpu", "dev"),
        help="default: the one that suits the machine; the reason is printed",
    )
    add_hardware(result)
    result.add_argument("--fresh", action="store_true", help="do every step again")
    result.add_argument(
        "--smoke", action="store_true", help="trainings of 100 steps: whether everything works together"
    )
    result.add_argument("--yes", action="store_true", help="for the installer; nothing is asked here")
    result.add_argument(
        "--config",
        nargs="*",
        default=[],
        metavar="key=value",
        help="overrides for all configurations of the recipe, or for one: whisper:key=value, e2e:key=value",
    )
    result.add_argument("--demo_minutes", type=float, help="minutes of speech to synthesise (demo profile)")
    result.add_argument("--by", help="what the split never tears apart: video, speaker, sentence, column")
    result.add_argument("--machine_rank", type=int, default=0, help="this machine's number, of several")
    result.add_argument("--installed", action="store_true", help=argparse.SUPPRESS)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: done; that of the step that failed; 128 + n: stopped by signal n."""
    args, others = parser().parse_known_args(argv)
    args.config = [*hardware_override(args), *args.config]
    if args.smoke:
        from training.config.arguments import SMOKE

        args.config = [*SMOKE, *args.config]
    if others and args.stage != "prod" and not args.recipe:
        raise UserError(f"polyvox pipeline: unknown option {others[0]}; --help lists them")
    from training.recipes.plan import places
    from training.recipes.walker import say

    began = time.monotonic()
    context = plan(args, others, say)
    walker = walker_of(context)
    installing, lines = 0.0, []
    if context.recipe.spec.installation:
        installing, took = _installation(args.installed)
        lines = [f"  [1/{walker.first + len(walker.steps) - 1}] {INSTALL:28} {took}"]
    status = walker.call()
    if status == 0:
        say(walker.closing(installing + time.monotonic() - began, places(context), lines))
    return status


def walker_of(context: Context) -> Walker:
    """A walk through the steps of a recipe; the first one is the shell's where that installs."""
    from training.recipes.plan import steps
    from training.recipes.walker import Walker

    return Walker(
        steps(context),
        context.state,
        context.say,
        first=2 if context.recipe.spec.installation else 1,
        fresh=context.fresh,
        rank=context.rank,
    )


def plan(args: argparse.Namespace, others: Sequence[str], say: Say) -> Context:
    """Choose the recipe and resolve its configurations, so that a mistake shows before anything is done."""
    from training.recipes.rules import Context

    recipe, runs = _own(args) if args.recipe else _ours(args, say)
    if others and recipe.spec.launcher is None:
        raise UserError(f"polyvox pipeline: unknown option {others[0]}; --help lists them")
    rank = ("--machine_rank", str(args.machine_rank)) if args.machine_rank else ()
    return Context(
        recipe=recipe,
        runs=runs,
        say=say,
        given=_variables(args, recipe),
        fresh=args.fresh,
        launcher=(*others, *rank),
        rank=args.machine_rank,
    )


def _own(args: argparse.Namespace) -> tuple[Recipe, dict[str, Run]]:
    from training.recipes.recipe import load

    if args.stage or args.profile:
        raise UserError("--recipe names the steps to be done; leave out --stage and --profile")
    recipe = load(args.recipe)
    return recipe, resolved_runs(recipe, args.config)


def _ours(args: argparse.Namespace, say: Say) -> tuple[Recipe, dict[str, Run]]:
    from training.recipes.machine import choose, look
    from training.recipes.recipe import load, ours

    if args.stage == "prod" and args.profile:
        raise UserError("--profile goes with --stage dev; --stage prod uses configs/prod_*.yaml")
    profile = "prod" if args.stage == "prod" else args.profile
    recipe = load(ours(profile or "demo"))
    runs = resolved_runs(recipe, args.config)
    if profile is not None:
        say(f"profile {profile}: as asked")
        return recipe, runs
    # Where the manifest lies is the same in all profiles, unless a configuration was changed.
    manifest = next(iter(runs.values())).path("manifest_path")
    others = {name: load(ours(name)) for name in PRETRAINED}
    choice = choose(
        look(manifest, {name: _weights(one, args.config) for name, one in others.items()}), manifest
    )
    say(choice.line)
    if choice.profile == "demo":
        return recipe, runs
    chosen = others[choice.profile]
    return chosen, resolved_runs(chosen, args.config)


def _weights(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """The pretrained weights that a recipe's configurations begin with, the user's ``model.name=…`` in their place."""
    from training.recipes.machine import pretrained_names

    named = [
        (Path(str(config)), overrides_for(name, overrides, recipe.spec.runs))
        for name, config in recipe.spec.runs.items()
    ]
    return pretrained_names(named)


def _variables(args: argparse.Namespace, recipe: Recipe) -> dict[str, object]:
    """What options say of the recipe's variables."""
    told = {"minutes": ("--demo_minutes", args.demo_minutes), "by": ("--by", args.by)}
    given = {name: pair for name, pair in told.items() if pair[1] is not None}
    for name, (option, _) in given.items():
        if name not in recipe.spec.variables:
            raise UserError(f"{option}: {recipe.path} has no variable {name}; leave the option out")
    return {name: value for name, (_, value) in given.items()}


def resolved_runs(recipe: Recipe, overrides: Sequence[str]) -> dict[str, Run]:
    """The recipe's training configurations, with their overrides."""
    from training.config.source import Mistake
    from training.recipes.recipe import refuse
    from training.recipes.resolve import runs_of

    configs = recipe.spec.runs
    given_elsewhere = [
        Mistake(recipe.place(("runs", name)), ("runs", name), "names no configuration; give its path")
        for name, config in configs.items()
        if config is None
    ]
    refuse(given_elsewhere)
    if overrides and not configs:
        raise UserError(f"--config {overrides[0]}: {recipe.path} has no configuration in runs")
    found = runs_of(
        [(Path(str(config)), overrides_for(name, overrides, configs)) for name, config in configs.items()]
    )
    runs = dict(zip(configs, found, strict=True))
    folders: dict[Path, str] = {}
    for name, run in runs.items():
        if (other := folders.setdefault(run.resolved.folder, name)) != name:
            who = f"{other}:… and {name}:…"
            raise UserError(f"both models would be trained in {run.resolved.folder}; use {who}")
    return runs


def overrides_for(name: str, overrides: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Those for all of ``names``, and those that begin with ``<name>:``."""
    from training.recipes.resolve import addressed

    told = (addressed(override, names) for override in overrides)
    return tuple(override for who, override in told if who in (None, name))


def _installation(installed: bool) -> tuple[float, str]:
    """Seconds that the previous call took for it, and the text to print about them."""
    from training.recipes.walker import clock, say

    if not installed:
        say(f"[1/6] {INSTALL}: this environment")
        return 0.0, "this environment"
    seconds = json.loads((Path(sys.prefix) / "polyvox.json").read_text(encoding="utf8"))["last_seconds"]
    took = clock(seconds) if seconds else "nothing to do"
    say(f"[1/6] {INSTALL}: {took}")
    return seconds, took
