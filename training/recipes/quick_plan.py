"""The steps of ``polyvox quick-train`` as tasks: from the configuration of a VoxLM to its model, scores and export.

What is to be made follows from the resolved configuration and from what is there. What lies there and was not made by
this command is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.recipes import tasks
from training.recipes.attempt import RESULTS, Start
from training.recipes.corpus import data_tasks
from training.recipes.state import State
from training.recipes.tasks import Run, Say, Step, Task
from training.recipes.word_labels import Label

CALIBRATION = "calibration.json"
MODEL = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Quick:
    """What the call asked for.

    ``encoder``: the run that makes the phases' encoder; ``llm``: the folder that `polyvox lm causal` makes; None: they
    are there, or a hub has them. ``labels``: the splits that need word times. ``options``: words of the command line for
    the demo corpus, the language model and the word times.
    """

    phase1: Run
    phase2: Run
    encoder: Run | None = None
    llm: Path | None = None
    labels: tuple[Label, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    export: Path | None = None
    fresh: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The configuration of phase 1."""
        return self.phase1.resolved.values

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        return self.phase2.resolved.folder

    def told(self, name: str) -> tuple[str, ...]:
        """The words for one of the commands."""
        return tuple(self.options.get(name, ()))


def steps(quick: Quick, state: State, say: Say) -> list[Step]:
    """All of them, in order."""
    found = [
        Step("Data", lambda: data_tasks(quick.phase1, quick.told("demo"), state, say)),
        Step("Encoder and language model", lambda: part_tasks(quick, state, say)),
        Step("Word times", lambda: label_tasks(quick, state, say)),
        Step("Phase 1: transcription", lambda: [phase1_task(quick, state, say)]),
        Step("Phase 2: word times", lambda: [phase2_task(quick, state, say)]),
        Step("Calibrate the confidence", lambda: calibrations(quick)),
        Step("Evaluate", lambda: scorings(quick)),
    ]
    return found if quick.export is None else [*found, Step("Export", lambda: [export_task(quick, state)])]


# The parts that a model from scratch is put together from


def part_tasks(quick: Quick, state: State, say: Say) -> list[Task]:
    """The encoder's training and the language model's, where the configuration's folders are to be made."""
    parts: list[tuple[Path, str, Callable[[], Task]]] = []
    if (run := quick.encoder) is not None:
        training = partial(tasks.training_task, run, state, say, fresh=quick.fresh)
        parts.append((run.resolved.folder, run.key, training))
    if quick.llm is not None:
        parts.append((quick.llm, causal_key(quick.llm), partial(causal_task, quick, quick.llm)))
    found = []
    for folder, key, make in parts:
        if tasks.foreign(folder / MODEL, key, state):
            say(f"{folder}: there already, used as it is")
        else:
            found.append(make())
    return found


def causal_key(folder: Path) -> str:
    """Name of the language model's task."""
    return f"lm causal {folder}"


def causal_task(quick: Quick, folder: Path) -> Task:
    """``polyvox lm causal`` on the training transcripts."""
    data = quick.values["data"]
    if not tasks.from_files(data):
        raise UserError(
            f"model.llm: {folder} is not there, and only from manifests (data.train) can it be trained; make it with "
            "polyvox lm causal, or name a language model that is there"
        )
    told = ("--instruction", quick.values["model"]["instruction"], *quick.told("llm"))
    return Task(
        key=causal_key(folder),
        command=tasks.module("training.cli.lm", "causal", "--text", data["train"], "--output", folder, *told),
        values=told,
        reads=(Path(data["train"]),),
        writes=(folder / MODEL, folder / WEIGHTS),
        start=lambda inputs: Start(("--overwrite",) if (folder / MODEL).exists() else ()),
    )


def _made_parts(quick: Quick, state: State) -> list[Path]:
    """Files that tell whether a part is another than before; those of other makers are taken for granted."""
    found = []
    if quick.encoder is not None and state.record(quick.encoder.key):
        found.append(quick.encoder.resolved.folder / RESULTS)
    if quick.llm is not None and state.record(causal_key(quick.llm)):
        found.append(quick.llm / WEIGHTS)
    return found


# Word times, and the two phases


def label_tasks(quick: Quick, state: State, say: Say) -> list[Task]:
    """``polyvox timestamps`` for each split whose rows have no times of words."""
    found = []
    for label in quick.labels:
        task = _label_task(label, quick, state)
        if tasks.foreign(label.manifest, task.key, state):
            say(f"{label.manifest}: there already, used as it is")
        else:
            found.append(task)
    return found


def _label_task(label: Label, quick: Quick, state: State) -> Task:
    key, told = f"timestamps {label.output / label.split}", quick.told("timestamps")

    def start(inputs: str) -> Start:
        record = state.record(key)
        anew = record is not None and (record["inputs"] != inputs or record.get("redo"))
        return Start(("--force",) if anew else ())

    where = ("--data", label.data, "--split", label.split, "--output", label.output)
    return Task(
        key=key,
        command=tasks.module("training.cli.timestamps", *where, *told, "--fast"),
        values=told,
        reads=() if label.data.is_dir() else (label.data,),
        writes=(label.manifest,),
        start=start,
    )


def phase1_task(quick: Quick, state: State, say: Say) -> Task:
    """To write what is said."""
    return tasks.training_task(quick.phase1, state, say, fresh=quick.fresh, reads=_made_parts(quick, state))


def phase2_task(quick: Quick, state: State, say: Say) -> Task:
    """To say when: goes on with the model of phase 1."""
    of_phase1 = [quick.phase1.resolved.folder / RESULTS]
    return tasks.training_task(quick.phase2, state, say, fresh=quick.fresh, reads=of_phase1)


# The finished model


def calibrations(quick: Quick) -> list[Task]:
    """``polyvox calibrate`` on the dev split, where there is one; a model that says next to nothing stays as it is."""
    dev = quick.phase2.resolved.values["data"]["dev"]
    task = Task(
        key=f"calibrate {quick.phase2.resolved.name}",
        command=tasks.module("training.cli.calibrate", "--model_dir", quick.model, "--if_possible"),
        reads=(quick.model / RESULTS, *([Path(dev)] if dev else [])),
        may_write=(quick.model / CALIBRATION,),
    )
    return [task] if dev else []


def scorings(quick: Quick) -> list[Task]:
    """The test split and the unheard voice.

    Of LibriSpeech's the text of every utterance, by phase 1 (phase 2 leaves the text as it is), and apart from it the
    times of those utterances that have labels: the others were hard to hear for the teacher too.
    """
    calibrated = [quick.model / CALIBRATION]
    if not (libri := quick.values["data"].get("librispeech")):
        return tasks.evaluations(quick.phase2, calibrated)
    whole = tasks.evaluations(quick.phase1) if libri["test"] else []
    name = quick.phase2.resolved.name
    tested = [label for label in quick.labels if label.part == "test"]
    return [
        *whole,
        *(
            tasks.evaluation(quick.phase2, f"{name}_labelled_{label.split}", [label.manifest], calibrated)
            for label in tested
        ),
    ]


def check_export(quick: Quick, state: State) -> None:
    """`UserError` for an export folder that the last step would refuse, before the hours of the others."""
    if quick.export is None:
        return
    trained = [run.resolved.folder.resolve() for run in (quick.phase1, quick.phase2)]
    if quick.export.resolve() in trained:
        raise UserError(f"--export {quick.export}: is the folder of a training; name another")
    if quick.export.exists() and not quick.export.is_dir():
        raise UserError(f"--export {quick.export}: is a file; name a folder")
    made = state.record(export_key(quick.export)) is not None
    if not made and quick.export.is_dir() and any(quick.export.iterdir()):
        raise UserError(
            f"--export {quick.export}: holds files already; name an empty folder, or empty this one"
        )


def export_key(folder: Path) -> str:
    """Name of the export's task."""
    return f"export {folder}"


def export_task(quick: Quick, state: State) -> Task:
    """The model's files, without checkpoints, in a folder of their own."""
    assert quick.export is not None
    key, output = export_key(quick.export), quick.export
    return Task(
        key=key,
        command=tasks.module("training.recipes.export", "--model_dir", quick.model, "--output", output),
        reads=(quick.model / RESULTS, quick.model / CALIBRATION),
        writes=(output / MODEL, output / "README.txt"),
        start=lambda inputs: Start(("--force",) if state.record(key) else ()),
    )


def evaluated(quick: Quick) -> Sequence[str]:
    """Names of the evaluations."""
    return [task.key.removeprefix("evaluate ") for task in scorings(quick)]
