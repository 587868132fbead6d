"""The six steps as tasks: commands, what each reads and what each writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.recipes import tasks
from training.recipes.attempt import RESULTS
from training.recipes.machine import is_demo
from training.recipes.state import State
from training.recipes.tasks import Run, Say, Step, Task

LEADER_ONLY = ("Evaluate on the test split", "Charts and report")
"""Steps of one machine, where several train together."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the call asked for."""

    runs: tuple[Run, ...]
    demo: bool
    fresh: bool = False
    minutes: float | None = None
    by: str | None = None
    launcher: tuple[str, ...] | None = None
    rank: int = 0

    def path(self, name: str) -> Path:
        """One of the configuration's ``paths``."""
        return Path(self.runs[0].resolved.values["paths"][name])

    @property
    def manifest(self) -> Path:
        """The annotation system's export."""
        return self.path("manifest_path")

    @property
    def splits(self) -> Path:
        """Folder of ``train.csv``, ``dev.csv``, ``test.csv``."""
        return self.path("splits_dir")

    @property
    def results(self) -> Path:
        """Scores and hypotheses."""
        return self.path("output_dir") / tasks.RESULTS_FOLDER

    @property
    def charts(self) -> Path:
        """Charts and the report."""
        return self.path("output_dir") / "charts"

    @property
    def clean(self) -> Path:
        """The cleaned manifest, beside the exported one."""
        return self.manifest.with_name(f"{self.manifest.stem}_clean.tsv")


def steps(settings: Settings, state: State, say: Say) -> list[Step]:
    """Steps 2 to 6; the first is the shell's."""
    titles = {"whisper": "Train Whisper", "e2e": "Train E2E"}
    training = [
        Step(titles[run.architecture], lambda run=run: [training_task(settings, run, state, say)])  # type: ignore[misc]
        for run in settings.runs
    ]
    return [
        Step("Prepare data", lambda: data_tasks(settings, state, say)),
        *training,
        Step(LEADER_ONLY[0], lambda: scorings(settings)),
        Step(LEADER_ONLY[1], lambda: [charts_task(settings)]),
    ]


def training_task(settings: Settings, run: Run, state: State, say: Say) -> Task:
    """One of the trainings, as the call asked for it."""
    return tasks.training_task(run, state, say, fresh=settings.fresh, launcher=settings.launcher)


def scorings(settings: Settings) -> list[Task]:
    """Every evaluation of both models."""
    return [task for run in settings.runs for task in tasks.evaluations(run)]


def data_tasks(settings: Settings, state: State, say: Say) -> list[Task]:
    """Demo corpus where it is wanted and nobody else's manifest is there, cleaning, splitting."""
    values = [run.resolved.values for run in settings.runs]
    if all(not tasks.reads_splits(config, settings.splits) for config in values):
        say("the configurations name their own data: nothing to prepare")
        return []
    synthesis = demo_task(settings, state, say)
    cleaning, by = _cleaning(values[0]), ("--by", settings.by) if settings.by else ()
    return [
        *([synthesis] if synthesis else []),
        Task(
            key="clean",
            command=tasks.module(
                "training.cli.preprocess",
                *("--input", settings.manifest, "--output", settings.clean, *cleaning),
            ),
            values=cleaning,
            reads=(settings.manifest,),
            writes=(settings.clean,),
        ),
        tasks.splitting(settings.clean, settings.splits, by),
    ]


def _cleaning(config: dict[str, Any]) -> tuple[str, ...]:
    """Options of the cleaning that the configuration decides."""
    data, longest = config["data"], config["audio"]["max_length_seconds"]
    root = ("--audio_root", data["audio_root"]) if data["audio_root"] else ()
    renamed = (f"{ours}={theirs}" for ours, theirs in data["columns"].items())
    return (*root, "--max_duration", str(longest), *(word for pair in renamed for word in ("--column", pair)))


def demo_task(settings: Settings, state: State, say: Say) -> Task | None:
    """Synthesis of the corpus; None where there is a manifest that is not the demo's, or was edited."""
    manifest = settings.manifest
    if manifest.exists() and not is_demo(manifest):
        say(f"{manifest}: your own, used as it is")
        return None
    if not settings.demo:
        if not manifest.exists():
            raise UserError(
                f"{manifest} is not there: export the annotations to it, name another with --config "
                "paths.manifest_path=…, or try the synthesised corpus with ./run_dev.sh --profile demo"
            )
        say(f"{manifest}: the synthesised demo corpus")
        return None
    minutes = ("--minutes", str(settings.minutes)) if settings.minutes else ()
    return tasks.synthesis(manifest, state, say, options=minutes, values={"minutes": settings.minutes})


def charts_task(settings: Settings) -> Task:
    """Charts and the report of what was scored."""
    folders = [run.resolved.folder for run in settings.runs]
    return Task(
        key="charts",
        command=tasks.module(
            "training.cli.charts",
            *(
                "--outputs",
                settings.path("output_dir"),
                "--results",
                settings.results,
                "--charts",
                settings.charts,
            ),
        ),
        reads=(*(task.writes[0] for task in scorings(settings)), *(folder / RESULTS for folder in folders)),
        writes=(settings.charts / "report.html",),
    )
