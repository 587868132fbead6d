"""``polyvox pipeline``: data, both models, scores and charts; what is finished is not done again."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.pipeline import process
from training.pipeline.machine import choose, look
from training.pipeline.plan import LEADER_ONLY, Run, Settings, Step, Task, steps
from training.pipeline.resolve import resolve
from training.pipeline.state import NAME, State

ARCHITECTURES = ("whisper", "e2e")
CONFIGS = Path("configs")
COUNT = 6
POLL_SECONDS = 5.0
Say = Callable[[str], None]


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
    say = _say
    began = time.monotonic()
    settings = plan(args, others, say)
    state = State(settings.path("output_dir") / NAME)
    if settings.rank == 0:
        state.refuse_second()
        if settings.fresh:
            state.redo_all()
        state.open_call()
    pipeline = Pipeline(settings, state, say)
    pipeline.times["Install dependencies"] = _installation(args.installed, say)
    status = 1
    try:
        status = pipeline.run()
    except process.Stopped as stopped:
        say(f"stopped in {stopped.key!r}; the same command goes on from there")
        status = 128 + stopped.number
    finally:
        if settings.rank == 0:
            state.close_call(status)
    if status == 0:
        say(pipeline.closing(time.monotonic() - began))
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
    chosen = []
    for override in overrides:
        prefix, colon, rest = override.partition(":")
        named = bool(colon) and prefix in ARCHITECTURES
        if not named or prefix == architecture:
            chosen.append(rest if named else override)
    return tuple(chosen)


class Pipeline:
    """Walks through the steps; keeps how long each took."""

    def __init__(self, settings: Settings, state: State, say: Say):
        self.settings, self.state, self.say = settings, state, say
        self.times: dict[str, str] = {}
        self.followed: str | None = None

    def run(self) -> int:
        """0, or the status of the task that failed."""
        for number, step in enumerate(steps(self.settings, self.state, self.say), 2):
            if self.settings.rank and step.title in LEADER_ONLY:
                continue
            self.say(f"[{number}/{COUNT}] {step.title}")
            if status := self._step(step):
                self.say(f"[{number}/{COUNT}] {step.title} failed with status {status}")
                return status
            self.say(f"[{number}/{COUNT}] {step.title}: {self.times[step.title]}")
        return 0

    def _step(self, step: Step) -> int:
        began, earlier, worked = time.monotonic(), 0.0, False
        for task in step.tasks():
            status, before = self._follow(task) if self.settings.rank else self._task(task)
            if status:
                return status
            earlier += before or 0.0
            worked |= before is None
        now = clock(time.monotonic() - began)
        self.times[step.title] = now if worked else f"nothing to do ({clock(earlier)} when it was done)"
        return 0

    def _task(self, task: Task) -> tuple[int, float | None]:
        """Status, and how long an earlier call took where there was nothing to do."""
        inputs = task.inputs()
        if self.state.is_finished(task.key, inputs, task.writes):
            record = self.state.record(task.key)
            assert record is not None
            return 0, record["seconds"]
        start = task.start(inputs)
        self.state.begin(task.key, inputs, flags=start.flags, goes_on="--resume" in start.flags or start.done)
        began = time.monotonic()
        if not start.done and (status := self._process(task, start.flags)):
            return status, None
        if missing := [str(path) for path in task.writes if not path.exists()]:
            raise RuntimeError(f"{task.key} ended well but did not write {', '.join(missing)}")
        self.state.finish(task.key, time.monotonic() - began, task.notes())
        return 0, None

    def _process(self, task: Task, flags: Sequence[str]) -> int:
        ended = process.run(
            # A flag with an optional value must not be followed by key=value.
            [*task.command, *flags],
            launcher=task.launcher,
            started=self.state.process if self.settings.rank == 0 else lambda pid: None,
        )
        if ended.status == 0:
            return 0
        if self.settings.rank == 0:
            self.state.stop()
        if number := _stopped_by(ended):
            raise process.Stopped(task.key, number)
        return ended.status if ended.status > 0 else 128 - ended.status

    def _follow(self, task: Task) -> tuple[int, float | None]:
        """On another machine than the first: wait until that one has prepared, or trains, and train with it.

        With ``--fresh`` what an earlier call has finished does not count: the first machine's call is awaited.
        """
        told = False
        while True:
            self.state.reload()
            call = self.state.call or {"id": None, "status": 0}
            if call["status"] is None:
                self.followed = call["id"]
            ours = self.followed is not None and call["id"] == self.followed
            record, now = self.state.record(task.key), self.state.running
            if ours or not self.settings.fresh:
                if self.state.is_finished(task.key, task.inputs(), task.writes):
                    return 0, record["seconds"] if record else 0.0
                if task.launcher and now and now["key"] == task.key and "pid" in now:
                    return self._process(task, now["flags"]), None
            if ours and call["status"]:
                self.say(f"machine 0 ended with status {call['status']} before {task.key}")
                return call["status"], None
            if not told:
                self.say(f"waiting for machine 0: {task.key}")
                told = True
            time.sleep(POLL_SECONDS)

    def closing(self, seconds: float) -> str:
        """Durations, scores, and where everything lies."""
        settings = self.settings
        titles = ["Install dependencies", *(step.title for step in steps(settings, self.state, self.say))]
        lines = [
            f"  [{number}/{COUNT}] {title:28} {self.times[title]}"
            for number, title in enumerate(titles, 1)
            if title in self.times
        ]
        where = {
            "models": ", ".join(str(run.resolved.folder) for run in settings.runs),
            "scores": settings.results,
            "charts": settings.charts,
            "report": settings.charts / "report.html",
        }
        places = [f"  {name:8} {path}" for name, path in where.items()]
        return "\n".join([f"\nDone in {clock(seconds)}", *lines, *self._scores(), *places])

    def _scores(self) -> list[str]:
        from training.evaluation.summary import score_text

        lines = []
        for run in self.settings.runs:
            for name in (run.resolved.name, f"{run.resolved.name}_unheard"):
                path = self.settings.results / f"{name}_metrics.json"
                if path.is_file():
                    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))["scores"]
                    text = ", ".join(f"{metric} {score_text(score)}" for metric, score in scores.items())
                    lines.append(f"  {name}: {text}")
        return lines


def _stopped_by(ended: process.Ended) -> int | None:
    """The signal that ended a task: sent to us, or to the task itself."""
    if ended.signal:
        return ended.signal
    stops = {-ended.status, ended.status - 128} & {signal.SIGINT, signal.SIGTERM}
    return min(stops) if stops else None


def _installation(installed: bool, say: Say) -> str:
    if not installed:
        say("[1/6] Install dependencies: this environment")
        return "this environment"
    seconds = json.loads((Path(sys.prefix) / "polyvox.json").read_text(encoding="utf8"))["last_seconds"]
    took = clock(seconds) if seconds else "nothing to do"
    say(f"[1/6] Install dependencies: {took}")
    return took


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _say(text: str) -> None:
    print(text, flush=True)
