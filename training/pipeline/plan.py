"""The six steps as tasks: commands, what each reads and what each writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.pipeline.attempt import RESULTS, Start, decide
from training.pipeline.machine import DEMO_VIDEO, is_demo
from training.pipeline.resolve import Resolved
from training.pipeline.state import State, file_hash, fingerprint
from training.pipeline.weights import of_scores, of_weights

LEADER_ONLY = ("Evaluate on the test split", "Charts and report")
"""Steps of one machine, where several train together."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One of the two trainings."""

    architecture: str
    config: Path
    overrides: tuple[str, ...]
    resolved: Resolved

    @property
    def key(self) -> str:
        """Name of its training task."""
        return f"train {self.resolved.name}"


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
        return self.path("output_dir") / "results"

    @property
    def charts(self) -> Path:
        """Charts and the report."""
        return self.path("output_dir") / "charts"

    @property
    def clean(self) -> Path:
        """The cleaned manifest, beside the exported one."""
        return self.manifest.with_name(f"{self.manifest.stem}_clean.tsv")


def _no_flags(inputs: str) -> Start:
    return Start()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process. ``start`` is told the hash of the inputs and adds flags; ``notes`` are kept when it is done."""

    key: str
    command: tuple[str, ...]
    values: Any = None
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    start: Callable[[str], Start] = _no_flags
    notes: Callable[[], dict[str, Any]] = dict
    launcher: bool = False

    def inputs(self) -> str:
        """Hash of everything that the result depends on."""
        return fingerprint(self.values, self.reads)


@dataclass(frozen=True)
class Step:
    """What is announced as ``[n/6]``. Tasks are made when the step begins: they depend on what is there."""

    title: str
    tasks: Callable[[], list[Task]] = field(repr=False)


def steps(settings: Settings, state: State, say: Callable[[str], None]) -> list[Step]:
    """Steps 2 to 6; the first is the shell's."""
    titles = {"whisper": "Train Whisper", "e2e": "Train E2E"}
    training = [
        Step(titles[run.architecture], lambda run=run: [training_task(settings, run, state, say)])  # type: ignore[misc]
        for run in settings.runs
    ]
    return [
        Step("Prepare data", lambda: data_tasks(settings, state, say)),
        *training,
        Step(LEADER_ONLY[0], lambda: [task for run in settings.runs for task in evaluations(settings, run)]),
        Step(LEADER_ONLY[1], lambda: [charts_task(settings)]),
    ]


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """One of our commands, under this interpreter."""
    return (sys.executable, "-m", name, *map(str, arguments))


def data_tasks(settings: Settings, state: State, say: Callable[[str], None]) -> list[Task]:
    """Demo corpus where it is wanted and nobody else's manifest is there, cleaning, splitting."""
    values = [run.resolved.values for run in settings.runs]
    if all(not _reads_splits(config, settings.splits) for config in values):
        say("the configurations name their own data: nothing to prepare")
        return []
    synthesis = demo_task(settings, state, say)
    cleaning, splitting = _cleaning(values[0]), ("--by", settings.by) if settings.by else ()
    splits = tuple(settings.splits / f"{name}.csv" for name in ("train", "dev", "test"))
    return [
        *([synthesis] if synthesis else []),
        Task(
            key="clean",
            command=module(
                "training.data.preprocess_manifest",
                *("--input", settings.manifest, "--output", settings.clean, *cleaning),
            ),
            values=cleaning,
            reads=(settings.manifest,),
            writes=(settings.clean,),
        ),
        Task(
            key="split",
            command=module(
                "training.data.split_data",
                *("--manifest", settings.clean, "--output_dir", settings.splits, *splitting),
            ),
            values=splitting,
            reads=(settings.clean,),
            writes=splits,
        ),
    ]


def _cleaning(config: dict[str, Any]) -> tuple[str, ...]:
    """Options of the cleaning that the configuration decides."""
    data, longest = config["data"], config["audio"]["max_length_seconds"]
    root = ("--audio_root", data["audio_root"]) if data["audio_root"] else ()
    renamed = (f"{ours}={theirs}" for ours, theirs in data["columns"].items())
    return (*root, "--max_duration", str(longest), *(word for pair in renamed for word in ("--column", pair)))


def _reads_splits(config: dict[str, Any], splits: Path) -> bool:
    train = config["data"]["train"]
    return config["data"]["dataset"] is None and train is not None and Path(train).parent == splits


def demo_task(settings: Settings, state: State, say: Callable[[str], None]) -> Task | None:
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
    made = ((state.record("synthesise") or {}).get("notes") or {}).get("manifest")
    if manifest.exists() and made not in (None, file_hash(manifest)):
        say(f"{manifest}: changed since it was synthesised, kept as it is")
        return None
    minutes = ("--minutes", str(settings.minutes)) if settings.minutes else ()
    # A manifest that is here is the demo's; clips that lost theirs are known by their folders' names.
    there = manifest.exists() or any(manifest.parent.glob(f"video_{DEMO_VIDEO}*"))
    replace = ("--force",) if there else ()
    return Task(
        key="synthesise",
        command=module("training.data.demo", "--output", manifest.parent, *minutes, *replace),
        values={"minutes": settings.minutes},
        writes=(manifest,),
        notes=lambda: {"manifest": file_hash(manifest)},
    )


def training_task(settings: Settings, run: Run, state: State, say: Callable[[str], None]) -> Task:
    """``polyvox train``, alone or under ``accelerate launch``."""
    data = run.resolved.values["data"]
    arguments = ("--config", run.config, *run.overrides)
    command = module("training.scripts.train", *arguments)
    if settings.launcher is not None:
        launch = ("accelerate.commands.accelerate_cli", "launch", *settings.launcher)
        command = module(*launch, "-m", "training.scripts.train", *arguments)
    folder = run.resolved.folder

    def start(inputs: str) -> Start:
        return decide(run.resolved, state.record(run.key), inputs, fresh=settings.fresh, say=say)

    return Task(
        key=run.key,
        command=command,
        values=of_weights(run.resolved.values),
        reads=tuple(Path(data[name]) for name in ("train", "dev") if data[name]),
        writes=(folder / RESULTS, folder / "config.yaml"),
        start=start,
        launcher=settings.launcher is not None,
    )


def evaluations(settings: Settings, run: Run) -> list[Task]:
    """The test split and, where there is one, the voice that training never hears."""
    values = run.resolved.values
    tested = (
        [] if values["data"]["dataset"] else [Path(values["data"]["test"] or settings.splits / "test.csv")]
    )
    unheard = settings.splits / "unheard.csv"
    tasks = [_evaluation(settings, run, run.resolved.name, tested)]
    if tested and tested[0].parent == settings.splits and unheard.is_file():
        tasks.append(_evaluation(settings, run, f"{run.resolved.name}_unheard", [unheard]))
    return tasks


def _evaluation(settings: Settings, run: Run, name: str, manifests: Sequence[Path]) -> Task:
    folder, results = run.resolved.folder, settings.results
    # The run's own config.yaml keeps the settings that it was trained with.
    scoring = [f"{key}={json.dumps(value)}" for key, value in of_scores(run.resolved.values).items()]
    told = ("--evaluation", *scoring) if scoring else ()
    which = [argument for path in manifests for argument in ("--test_csv", path)]
    return Task(
        key=f"evaluate {name}",
        command=module(
            "training.scripts.run_evaluation",
            *("--model_dir", folder, *which, "--output", results, "--name", name, *told),
        ),
        values=of_scores(run.resolved.values),
        reads=(folder / RESULTS, *manifests),
        writes=(results / f"{name}_metrics.json", results / f"{name}_predictions.csv"),
    )


def charts_task(settings: Settings) -> Task:
    """Charts and the report of what was scored."""
    scored = [task for run in settings.runs for task in evaluations(settings, run)]
    folders = [run.resolved.folder for run in settings.runs]
    return Task(
        key="charts",
        command=module(
            "training.scripts.export_charts",
            *(
                "--outputs",
                settings.path("output_dir"),
                "--results",
                settings.results,
                "--charts",
                settings.charts,
            ),
        ),
        reads=(*(task.writes[0] for task in scored), *(folder / RESULTS for folder in folders)),
        writes=(settings.charts / "report.html",),
    )
