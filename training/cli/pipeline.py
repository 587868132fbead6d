"""``polyvox pipeline``: data, both models, scores and charts; what is finished is not done again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError
from training.recipes.machine import choose, look
from training.recipes.plan import LEADER_ONLY, Settings, steps
from training.recipes.resolve import addressed, resolve
from training.recipes.state import NAME, State
from training.recipes.tasks import Run, Say, Step, score_lines
from training.recipes.walker import Walker, clock, say

ARCHITECTURES = ("whisper", "e2e")
CONFIGS = Path("configs")
INSTALL = "Install dependencies"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox pipeline", description=__doc__, allow_abbrev=False)
    result.add_argument(
        "--stage", choices=("dev", "prod"), default="dev", help="prod: configs/prod_*, by accelerate"
    )
    result.add_argument(
        "--profile", choices=("demo", "dev"), help="default: what suits the machine, said why"
    )
    result.add_argument("--fresh", action="store_true", help="do every step again")
    result.add_argument("--yes", action="store_true", help="for the installer; nothing is asked here")
    result.add_argument(
        "--config",
        nargs="*",
        default=[],
        metavar="key=value",
        help="overrides for both configurations, or for one: whisper:key=value, e2e:key=value",
    )
    result.add_argument("--demo_minutes", type=float, help="minutes of speech to synthesise (demo profile)")
    result.add_argument("--by", help="what the split never tears apart: video, speaker, sentence, column")
    result.add_argument("--machine_rank", type=int, default=0, help="this machine's number, of several")
    result.add_argument("--installed", action="store_true", help=argparse.SUPPRESS)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: done; that of the step that failed; 128 + n: stopped by signal n."""
    args, others = parser().parse_known_args(argv)
    if others and args.stage != "prod":
        raise UserError(f"polyvox pipeline: unknown option {others[0]}; --help lists them")
    began = time.monotonic()
    settings = plan(args, others, say)
    pipeline = Pipeline(settings, State(settings.path("output_dir") / NAME), say)
    installing, pipeline.times[INSTALL] = _installation(args.installed)
    status = pipeline.call()
    if status == 0:
        say(pipeline.closing(installing + time.monotonic() - began))
    return status


def plan(args: argparse.Namespace, others: Sequence[str], say: Say) -> Settings:
    """Choose the profile and resolve both configurations, so that a mistake shows before anything is done."""
    profile = args.stage if args.stage == "prod" else args.profile
    if args.stage == "prod" and args.profile:
        raise UserError("--profile goes with --stage dev; --stage prod uses configs/prod_*.yaml")
    runs = resolved_runs(profile or "demo", args.config)
    if profile is None:
        # Where the manifest lies is the same in both profiles, unless a configuration was changed.
        manifest = Path(runs[0].resolved.values["paths"]["manifest_path"])
        choice = choose(look(manifest, [CONFIGS / f"dev_{name}.yaml" for name in ARCHITECTURES]), manifest)
        say(choice.line)
        profile = choice.profile
        if profile != "demo":
            runs = resolved_runs(profile, args.config)
    else:
        say(f"profile {profile}: as asked")
    rank = ("--machine_rank", str(args.machine_rank)) if args.machine_rank else ()
    return Settings(
        runs=runs,
        demo=profile == "demo",
        fresh=args.fresh,
        minutes=args.demo_minutes,
        by=args.by,
        launcher=(*others, *rank) if args.stage == "prod" else None,
        rank=args.machine_rank,
    )


def resolved_runs(profile: str, overrides: Sequence[str]) -> tuple[Run, ...]:
    """Both trainings of a profile."""
    own = {name: overrides_for(name, overrides) for name in ARCHITECTURES}
    configs = {name: CONFIGS / f"{profile}_{name}.yaml" for name in ARCHITECTURES}
    answers = resolve([(configs[name], own[name]) for name in ARCHITECTURES])
    runs = tuple(
        Run(architecture=name, config=configs[name], overrides=own[name], resolved=answer)
        for name, answer in zip(ARCHITECTURES, answers, strict=True)
    )
    if runs[0].resolved.folder == runs[1].resolved.folder:
        raise UserError(f"both models would be trained in {runs[0].resolved.folder}; use whisper:… and e2e:…")
    return runs


def overrides_for(architecture: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """Those for both, and those that begin with ``<architecture>:``."""
    told = (addressed(override, ARCHITECTURES) for override in overrides)
    return tuple(override for name, override in told if name in (None, architecture))


class Pipeline(Walker):
    """Walks through steps 2 to 6 of both models."""

    def __init__(self, settings: Settings, state: State, say: Say):
        super().__init__(
            steps(settings, state, say), state, say, first=2, fresh=settings.fresh, rank=settings.rank
        )
        self.settings = settings

    def concerns(self, step: Step) -> bool:
        """On other machines than the first only what several do together."""
        return not self.settings.rank or step.title not in LEADER_ONLY

    def closing(self, seconds: float) -> str:
        """Durations, scores, and where everything lies."""
        settings = self.settings
        where = {
            "models": ", ".join(str(run.resolved.folder) for run in settings.runs),
            "scores": settings.results,
            "charts": settings.charts,
            "report": settings.charts / "report.html",
        }
        names = [f"{run.resolved.name}{end}" for run in settings.runs for end in ("", "_unheard")]
        places = [f"  {name:8} {path}" for name, path in where.items()]
        installed = [f"  [1/6] {INSTALL:28} {self.times[INSTALL]}"] if INSTALL in self.times else []
        lines = [*installed, *self.durations(), *score_lines(settings.results, names), *places]
        return "\n".join([f"\nDone in {clock(seconds)}", *lines])


def _installation(installed: bool) -> tuple[float, str]:
    """Seconds that the call before this one took for it, and what is said of them."""
    if not installed:
        say(f"[1/6] {INSTALL}: this environment")
        return 0.0, "this environment"
    seconds = json.loads((Path(sys.prefix) / "polyvox.json").read_text(encoding="utf8"))["last_seconds"]
    took = clock(seconds) if seconds else "nothing to do"
    say(f"[1/6] {INSTALL}: {took}")
    return seconds, took
