"""A walk through steps of tasks: what is finished is not done again, signals stop it, the next call goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.base.errors import UserError
from training.recipes import process
from training.recipes.state import State
from training.recipes.tasks import Say, Step, Task, score_lines

POLL_SECONDS = 5.0
WRITTEN = "written"
"""Note of a task: the files of `Task.may_write` that it has written."""


class Walker:
    """Walks through the steps; keeps how long each took.

    ``first`` is the number of the first step; ``fresh``: everything is done again; ``rank``: the machine's, of several.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        state: State,
        say: Say,
        *,
        first: int = 1,
        fresh: bool = False,
        rank: int = 0,
    ):
        self.steps, self.state, self.say = steps, state, say
        self.first, self.fresh, self.rank = first, fresh, rank
        self.times: dict[int, str] = {}
        self.walked: list[Task] = []
        self.followed: str | None = None

    def call(self) -> int:
        """One call, noted in the state. 0: done; the status of the task that failed; 128 + n: stopped by signal n."""
        if self.rank == 0:
            self.state.refuse_second()
            if self.fresh:
                self.state.redo_all()
            self.state.open_call()
        status = 1
        try:
            status = self.run()
        except process.Stopped as stopped:
            self.say(f"stopped in {stopped.key!r}; the same command goes on from there")
            status = 128 + stopped.number
        finally:
            if self.rank == 0:
                self.state.close_call(status)
        return status

    def run(self) -> int:
        """0, or the status of the task that failed."""
        for index, step in enumerate(self.steps):
            if self.rank and step.first_machine_only:
                continue
            label = f"{self._number(index)} {step.title}"
            self.say(label)
            if status := self._step(index, step):
                self.say(f"{label} failed with status {status}")
                return status
            self.say(f"{label}: {self.times[index]}")
        return 0

    def closing(self, seconds: float, places: Mapping[str, str], before: Sequence[str] = ()) -> str:
        """Durations (``before``: lines of earlier steps), scores, and where everything lies."""
        durations = [
            f"  {self._number(index)} {self.steps[index].title:28} {took}"
            for index, took in self.times.items()
        ]
        metrics = (
            path for task in self.walked for path in task.writes if path.name.endswith("_metrics.json")
        )
        lines = [f"  {name:8} {place}" for name, place in places.items()]
        return "\n".join([f"\nDone in {clock(seconds)}", *before, *durations, *score_lines(metrics), *lines])

    def _number(self, index: int) -> str:
        before = self.first - 1
        return f"[{before + 1 + index}/{before + len(self.steps)}]"

    def _step(self, index: int, step: Step) -> int:
        began, earlier, worked = time.monotonic(), 0.0, False
        tasks = step.tasks()
        self.walked += tasks
        for task in tasks:
            status, seconds = self._follow(task) if self.rank else self._task(task)
            if status:
                return status
            earlier += seconds or 0.0
            worked |= seconds is None
        now = clock(time.monotonic() - began)
        before = f" ({clock(earlier)} when it was done)" if tasks else ""
        self.times[index] = now if worked else f"nothing to do{before}"
        return 0

    def _task(self, task: Task) -> tuple[int, float | None]:
        """Status, and how long an earlier call took where there was nothing to do."""
        inputs = task.inputs()
        if self._is_finished(task, inputs):
            record = self.state.record(task.key)
            assert record is not None
            return 0, record["seconds"]
        start = task.start(inputs)
        self.state.begin(task.key, inputs, flags=start.flags, goes_on="--resume" in start.flags or start.done)
        began = time.monotonic()
        if not start.done and (status := self._process(task, start.flags)):
            return status, None
        if missing := [str(path) for path in task.writes if not path.exists()]:
            raise _not_written(task, missing)
        written = [str(path) for path in task.may_write if path.exists()]
        notes = {**task.notes(), **({WRITTEN: written} if written else {})}
        self.state.finish(task.key, time.monotonic() - began, notes)
        return 0, None

    def _is_finished(self, task: Task, inputs: str) -> bool:
        """Done with these inputs, and all is there that it wrote."""
        notes = (self.state.record(task.key) or {}).get("notes") or {}
        return self.state.is_finished(task.key, inputs, [*task.writes, *map(Path, notes.get(WRITTEN, ()))])

    def _process(self, task: Task, flags: Sequence[str]) -> int:
        try:
            ended = process.run(
                # A flag with an optional value must not be followed by key=value.
                [*task.command, *flags],
                launcher=task.launcher,
                started=self.state.process if self.rank == 0 else lambda pid: None,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            text = f"{task.place}: {task.command[0]}: {error.strerror}; name a program that can be started"
            raise UserError(text) from error
        if ended.status == 0:
            return 0
        if self.rank == 0:
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
            if ours or not self.fresh:
                if self._is_finished(task, task.inputs()):
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


def _not_written(task: Task, missing: list[str]) -> Exception:
    text = f"{task.key} ended well but did not write {', '.join(missing)}"
    return (
        RuntimeError(text)
        if task.ours
        else UserError(f"{task.place}: {text}; mend the command or its outputs")
    )


def _stopped_by(ended: process.Ended) -> int | None:
    """The signal that ended a task: sent to us, or to the task itself."""
    if ended.signal:
        return ended.signal
    stops = {-ended.status, ended.status - 128} & {signal.SIGINT, signal.SIGTERM}
    return min(stops) if stops else None


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def say(text: str) -> None:
    """Print at once, also into a file or a pipe."""
    print(text, flush=True)
