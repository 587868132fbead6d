"""What the commands of several steps are made of: a run, a task (one process), a step; training and scoring a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes.attempt import RESULTS, Start, decide
from training.recipes.machine import DEMO_VIDEO
from training.recipes.resolve import Resolved
from training.recipes.state import State, file_hash, fingerprint
from training.recipes.weights import of_scores, of_weights

RESULTS_FOLDER = "results"
SYNTHESISE, SPLIT = "synthesise", "split"
OTHER_SOURCES = ("dataset", "registry", "manifest", "shards", "librispeech")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    architecture: str
    config: Path
    overrides: tuple[str, ...]
    resolved: Resolved

    @property
    def key(self) -> str:
        """Name of its training task."""
        return f"train {self.resolved.name}"

    def path(self, name: str) -> Path:
        """One of the configuration's ``paths``."""
        return Path(self.resolved.values["paths"][name])


def _no_flags(inputs: str) -> Start:
    return Start()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process. ``start`` is told the hash of the inputs and adds flags; ``notes`` are kept when it is done.

    ``may_write``: files that it writes where it can; those that it has written are looked for like those of ``writes``.
    """

    key: str
    command: tuple[str, ...]
    values: Any = None
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    may_write: tuple[Path, ...] = ()
    start: Callable[[str], Start] = _no_flags
    notes: Callable[[], dict[str, Any]] = dict
    launcher: bool = False

    def inputs(self) -> str:
        """Hash of everything that the result depends on."""
        return fingerprint(self.values, self.reads)


@dataclass(frozen=True)
class Step:
    """What is announced as ``[n/N]``. Tasks are made when the step begins: they depend on what is there."""

    title: str
    tasks: Callable[[], list[Task]] = field(repr=False)


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """One of our commands, under this interpreter."""
    return (sys.executable, "-m", name, *map(str, arguments))


def foreign(path: Path, key: str, state: State) -> bool:
    """Whether something is there that the task ``key`` has not made."""
    return path.exists() and state.record(key) is None


def synthesis(
    manifest: Path, state: State, say: Say, *, options: Sequence[str] = (), values: Any = None
) -> Task | None:
    """A demo corpus beside its manifest; None where the manifest was changed since it was made."""
    made = ((state.record(SYNTHESISE) or {}).get("notes") or {}).get("manifest")
    if manifest.exists() and made not in (None, file_hash(manifest)):
        say(f"{manifest}: changed since it was synthesised, kept as it is")
        return None
    # A manifest that is here is the demo's; clips that lost theirs are known by their folders' names.
    there = manifest.exists() or any(manifest.parent.glob(f"video_{DEMO_VIDEO}*"))
    replace = ("--force",) if there else ()
    return Task(
        key=SYNTHESISE,
        command=module("training.cli.demo_data", "--output", manifest.parent, *options, *replace),
        values=values,
        writes=(manifest,),
        notes=lambda: {"manifest": file_hash(manifest)},
    )


def splitting(manifest: Path, splits: Path, options: Sequence[str] = ()) -> Task:
    """``polyvox split``."""
    return Task(
        key=SPLIT,
        command=module("training.cli.split", "--manifest", manifest, "--output_dir", splits, *options),
        values=tuple(options),
        reads=(manifest,),
        writes=tuple(splits / f"{name}.csv" for name in ("train", "dev", "test")),
    )


def training_task(
    run: Run,
    state: State,
    say: Say,
    *,
    fresh: bool = False,
    launcher: Sequence[str] | None = None,
    reads: Sequence[Path] = (),
) -> Task:
    """``polyvox train``, alone or under ``accelerate launch``; ``reads``: files beside the manifests that it is made of."""
    data = run.resolved.values["data"]
    arguments = ("--config", run.config, *run.overrides)
    command = module("training.cli.train", *arguments)
    if launcher is not None:
        launch = ("accelerate.commands.accelerate_cli", "launch", *launcher)
        command = module(*launch, "-m", "training.cli.train", *arguments)
    folder = run.resolved.folder

    def start(inputs: str) -> Start:
        return decide(run.resolved, state.record(run.key), inputs, fresh=fresh, say=say)

    return Task(
        key=run.key,
        command=command,
        values=of_weights(run.resolved.values),
        reads=(*(Path(data[name]) for name in ("train", "dev") if data[name]), *reads),
        writes=(folder / RESULTS, folder / "config.yaml"),
        start=start,
        launcher=launcher is not None,
    )


def evaluations(run: Run, reads: Sequence[Path] = ()) -> list[Task]:
    """The test split and, where there is one, the voice that training never hears; ``reads``: more that decides them."""
    data, splits = run.resolved.values["data"], run.path("splits_dir")
    tested = [Path(data["test"] or splits / "test.csv")] if from_files(data) else []
    unheard = splits / "unheard.csv"
    tasks = [evaluation(run, run.resolved.name, tested, reads)]
    if tested and tested[0].parent == splits and unheard.is_file():
        tasks.append(evaluation(run, f"{run.resolved.name}_unheard", [unheard], reads))
    return tasks


def reads_splits(config: Mapping[str, Any], splits: Path) -> bool:
    """Whether a resolved configuration trains on a manifest of the folder ``splits``."""
    data = config["data"]
    return from_files(data) and data["train"] is not None and Path(data["train"]).parent == splits


def from_files(data: Mapping[str, Any]) -> bool:
    """Whether a resolved ``data`` block reads the manifests ``train``, ``dev`` and ``test``."""
    return not any(data.get(name) for name in OTHER_SOURCES)


def evaluation(run: Run, name: str, manifests: Sequence[Path], reads: Sequence[Path] = ()) -> Task:
    """``polyvox evaluate`` under a name, of the run's own test split where no manifest is given."""
    folder, results = run.resolved.folder, run.path("output_dir") / RESULTS_FOLDER
    # The run's own config.yaml keeps the settings that it was trained with.
    scoring = [f"{key}={json.dumps(value)}" for key, value in of_scores(run.resolved.values).items()]
    told = ("--evaluation", *scoring) if scoring else ()
    which = [argument for path in manifests for argument in ("--test_csv", path)]
    return Task(
        key=f"evaluate {name}",
        command=module(
            "training.cli.evaluate",
            *("--model_dir", folder, *which, "--output", results, "--name", name, *told),
        ),
        values=of_scores(run.resolved.values),
        reads=(folder / RESULTS, *reads, *manifests),
        writes=(results / f"{name}_metrics.json", results / f"{name}_predictions.csv"),
    )


def score_lines(results: Path, names: Iterable[str]) -> list[str]:
    """A line for each evaluation that is there."""
    from training.evaluation.summary import score_text

    lines = []
    for name in names:
        path = results / f"{name}_metrics.json"
        if path.is_file():
            scores: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))["scores"]
            text = ", ".join(f"{metric} {score_text(score)}" for metric, score in scores.items())
            lines.append(f"  {name}: {text}")
    return lines
