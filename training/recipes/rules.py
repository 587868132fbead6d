"""What a recipe's YAML cannot say: whose the corpus is, whether a training goes on, which settings decide it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.recipes.attempt import RESULTS, Start, decide
from training.recipes.machine import DEMO_VIDEO, is_demo
from training.recipes.placeholders import Scope
from training.recipes.recipe import Recipe
from training.recipes.resolve import Run
from training.recipes.state import State, file_hash
from training.recipes.tasks import Say, Task, foreign, launched

SYNTHESISE, SPLIT = "synthesise", "split"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Context:
    """A recipe and what the call asked for.

    ``given``: values that replace the recipe's ``variables``; ``launcher``: options for ``accelerate launch``;
    ``rank``: the machine's number, of several.
    """

    recipe: Recipe
    runs: Mapping[str, Run]
    say: Say
    given: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    launcher: tuple[str, ...] = ()
    rank: int = 0

    def scope(self, run: Run | None = None, **more: Any) -> Scope:
        """The names that placeholders may use; ``run``: whose configuration is meant, the first one's if none is."""
        chosen = run or next(iter(self.runs.values()), None)
        names: dict[str, Any] = {"recipe": self.recipe.path.stem}
        names["runs"] = {key: {**one.resolved.values, **one.names()} for key, one in self.runs.items()}
        if chosen is not None:
            names = {**chosen.resolved.values, "run": chosen.names(), **names}
        return Scope({**names, **more}, {**self.recipe.spec.variables, **self.given})

    @cached_property
    def state(self) -> State:
        """The record of what was done."""
        return State(Path(self.scope().text(self.recipe.spec.state)))


Rule = Callable[[Task, Run, list[str], Context], Task | None]
"""Task, its run and its words, and the call → the task as it is to be done; None: nothing is to be done."""


def training(task: Task, run: Run, words: list[str], context: Context) -> Task:
    """A training goes on, starts over, or stands back from a folder; under the recipe's launcher where it has one."""

    def start(inputs: str) -> Start:
        record = context.state.record(task.key)
        return decide(run.resolved, record, inputs, fresh=context.fresh, say=context.say)

    task = replace(task, start=start)
    if context.recipe.spec.launcher is None:
        return task
    return replace(task, command=launched(words, context.launcher), launcher=True)


def training_on_parts(task: Task, run: Run, words: list[str], context: Context) -> Task:
    """`training` that is done again with another encoder or language model of this recipe's making.

    Parts that others have made are taken for granted.
    """
    encoder, llm = context.runs.get("encoder"), context.scope().value("llm")
    made = []
    if encoder is not None and context.state.record(f"train {encoder.resolved.name}"):
        made.append(encoder.resolved.folder / RESULTS)
    if llm is not None and context.state.record(f"lm causal {llm}"):
        made.append(Path(llm) / WEIGHTS)
    return training(replace(task, reads=(*task.reads, *made)), run, words, context)


def wanted_splits(task: Task, run: Run, words: list[str], context: Context) -> Task | None:
    """Nothing where every configuration names its own data."""
    splits = run.path("splits_dir")
    return task if any(one.reads_splits(splits) for one in context.runs.values()) else None


def demo_corpus(task: Task, run: Run, words: list[str], context: Context) -> Task | None:
    """Synthesis of the corpus where ``{synthesise}`` says so; nothing where there is a manifest of one's own."""
    manifest = run.path("manifest_path")
    if wanted_splits(task, run, words, context) is None:
        context.say("the configurations name their own data: nothing to prepare")
        return None
    if manifest.exists() and not is_demo(manifest):
        context.say(f"{manifest}: your own, used as it is")
        return None
    if context.scope().value("synthesise"):
        return _synthesis(task, manifest, context)
    if not manifest.exists():
        raise UserError(
            f"{manifest} is not there: export the annotations to it, name another with --config "
            "paths.manifest_path=…, or try the synthesised corpus with ./run_dev.sh --profile demo"
        )
    context.say(f"{manifest}: the synthesised demo corpus")
    return None


def missing_corpus(task: Task, run: Run, words: list[str], context: Context) -> Task | None:
    """Synthesis of the corpus ``{corpus}`` where neither the splits nor a manifest to make them of are there."""
    data, manifest = run.resolved.values["data"], run.path("manifest_path")
    if missing_splits(task, run, words, context) is None:
        context.say("the configuration's data are there: nothing to prepare")
        return None
    corpus = context.scope().value("corpus")
    if corpus is None and not manifest.exists():
        raise UserError(
            f"data.train: {data['train']} is not there, nor is {manifest} to make it of; name your manifests in "
            "data.train, data.dev and data.test, or the export to be split in paths.manifest_path"
        )
    if corpus is None or foreign(manifest, SYNTHESISE, context.state):
        return None
    return _synthesis(task, manifest, context)


def missing_splits(task: Task, run: Run, words: list[str], context: Context) -> Task | None:
    """Splitting; nothing where the configuration names its own data, or somebody else has made the splits."""
    if not run.reads_splits(run.path("splits_dir")):
        return None
    train = Path(run.resolved.values["data"]["train"])
    return None if foreign(train, SPLIT, context.state) else task


def needs_manifests(task: Task, run: Run, words: list[str], context: Context) -> Task:
    """A language model is trained on the transcripts of manifests: a `UserError` where data come from elsewhere."""
    if not run.from_files:
        raise UserError(
            f"model.llm: {task.writes[0].parent} is not there, and only from manifests (data.train) can it be trained; "
            "make it with polyvox lm causal, or name a language model that is there"
        )
    return task


def deployment(task: Task, run: Run, words: list[str], context: Context) -> Task | None:
    """A check with faster-whisper; nothing where it is not installed, and a line that says so."""
    if importlib.util.find_spec("faster_whisper") is not None:
        return task
    context.say(
        "faster-whisper is not installed: whether the model is as good there and in stock transformers is not checked "
        "(pip install 'polyvox[deploy]', then the same command, or polyvox check-deployment)"
    )
    return None


def _synthesis(task: Task, manifest: Path, context: Context) -> Task | None:
    """A demo corpus beside its manifest; None where the manifest was changed since it was made."""
    made = ((context.state.record(SYNTHESISE) or {}).get("notes") or {}).get("manifest")
    if manifest.exists() and made not in (None, file_hash(manifest)):
        context.say(f"{manifest}: changed since it was synthesised, kept as it is")
        return None
    # A manifest that is here is the demo's; clips that lost theirs are known by their folders' names.
    there = manifest.exists() or any(manifest.parent.glob(f"video_{DEMO_VIDEO}*"))
    force = Start(("--force",) if there else ())
    return replace(task, start=lambda inputs: force, notes=lambda: {"manifest": file_hash(manifest)})


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        *(training, training_on_parts, needs_manifests, deployment),
        *(wanted_splits, demo_corpus, missing_corpus, missing_splits),
    )
}
"""By the name that a recipe calls them."""
