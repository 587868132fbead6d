"""A recipe's steps as tasks: placeholders filled, conditions and rules applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.config.source import Mistake
from training.recipes.attempt import Start
from training.recipes.placeholders import Scope, listed, placeholders
from training.recipes.recipe import KeyPath, Recipe, StepSpec, TaskSpec, refuse
from training.recipes.resolve import Run
from training.recipes.rules import RULES, Context
from training.recipes.state import State
from training.recipes.tasks import Step, Task, foreign, program
from training.recipes.weights import of_scores, of_weights

EACH_RUN = "runs"
OF_CONFIGURATION = {"weights": of_weights, "scores": of_scores}


def steps(context: Context) -> list[Step]:
    """The recipe's steps. Raises `UserError` for placeholders, rules and runs that are not there, with file and line."""
    refuse(list(_mistakes(context)))
    found = []
    for number, step in enumerate(context.recipe.spec.steps):
        tasks = partial(tasks_of, context, number)
        if _counted(step, context):
            found.append(Step(step.title, tasks, first_machine_only=step.machines == "first"))
    return found


def _counted(step: StepSpec, context: Context) -> bool:
    return step.only_if is None or bool(context.scope().filled(step.only_if))


def places(context: Context) -> dict[str, str]:
    """What is printed at the end, by name; a place whose value is null is left out."""
    filled = {name: context.scope().filled(text) for name, text in context.recipe.spec.places.items()}
    return {name: str(value) for name, value in filled.items() if value is not None}


def tasks_of(context: Context, number: int) -> list[Task]:
    """The tasks of a step, as things are now."""
    title = context.recipe.spec.steps[number].title
    made = [
        _task(spec, title, where, run, scope, context)
        for where, spec, run, scope in _instances(context, number)
        if _wanted(spec, scope)
    ]
    return [task for task in made if task is not None]


def _instances(context: Context, number: int) -> Iterator[tuple[KeyPath, TaskSpec, Run | None, Scope]]:
    """Each task of a step, as often as it is to be done, with its run."""
    step = context.recipe.spec.steps[number]
    for run, scope in _scopes(step, context):
        for where, spec in context.recipe.tasks(number):
            own = spec is not step and (spec.run or spec.each)
            for inner in _scopes(spec, context) if own else [(run, scope)]:
                yield where, spec, *inner


def _scopes(spec: TaskSpec, context: Context) -> Iterator[tuple[Run | None, Scope]]:
    """One for each time that a task is to be done. A task of a run that is not there is left out."""
    if spec.each == EACH_RUN:
        yield from ((run, context.scope(run)) for run in context.runs.values())
        return
    run = context.runs.get(spec.run) if spec.run else next(iter(context.runs.values()), None)
    if run is None and spec.run:
        return
    scope = context.scope(run)
    if spec.each is None:
        yield run, scope
    else:
        yield from ((run, context.scope(run, item=item)) for item in listed(scope.filled(spec.each)))


def _wanted(spec: TaskSpec, scope: Scope) -> bool:
    when = spec.when is None or bool(scope.filled(spec.when))
    return when and not (spec.unless is not None and bool(scope.filled(spec.unless)))


def _task(
    spec: TaskSpec, title: str, where: KeyPath, run: Run | None, scope: Scope, context: Context
) -> Task | None:
    try:
        task, words = _filled(spec, title, run, scope, context)
    except UserError as error:
        raise UserError(f"{context.recipe.place(where)}: {error}") from error
    task = replace(task, place=str(context.recipe.place(where)))
    if spec.kept_if_there is not None:
        file = Path(scope.text(spec.kept_if_there))
        if foreign(file, task.key, context.state):
            context.say(f"{file.parent}: there already, used as it is")
            return None
    if spec.rule is None:
        return task
    assert run is not None
    return RULES[spec.rule](task, run, words, context)


def _filled(
    spec: TaskSpec, title: str, run: Run | None, scope: Scope, context: Context
) -> tuple[Task, list[str]]:
    assert spec.command is not None
    words = scope.words(spec.command)
    again = scope.words(spec.again or [])
    if not words:
        raise UserError("the command is empty")
    task = Task(
        key=scope.text(spec.key or title),
        command=program(words),
        values=_settings(spec, words, run, scope),
        reads=tuple(map(Path, scope.texts(spec.inputs))),
        writes=tuple(map(Path, scope.texts(spec.outputs))),
        may_write=tuple(map(Path, scope.texts(spec.outputs_if_made))),
        ours=words[0] == "polyvox",
    )
    start = partial(_again, context.state, task.key, tuple(again), spec.resumes)
    return replace(task, start=start), words


def _settings(spec: TaskSpec, words: list[str], run: Run | None, scope: Scope) -> Any:
    if spec.settings is None:
        return words
    if isinstance(spec.settings, dict):
        return {name: scope.filled(text) for name, text in spec.settings.items()}
    if not isinstance(spec.settings, str):
        return scope.words(spec.settings)
    if run is None:
        raise UserError(f"settings: {spec.settings} needs a configuration in runs")
    return OF_CONFIGURATION[spec.settings](run.resolved.values)


def _again(state: State, key: str, words: tuple[str, ...], resumes: bool, inputs: str) -> Start:
    """The words of ``again``, unless this is the first attempt, or one that goes on with an earlier one."""
    record = state.record(key)
    same = record and record["inputs"] == inputs and not record.get("redo")
    return Start(words if record and not (resumes and same) else ())


def _mistakes(context: Context) -> Iterator[Mistake]:
    """What can be seen before the first step: unknown names of placeholders, rules and runs, keys given twice."""
    recipe, keys = context.recipe, dict[str, str]()
    for number in range(len(recipe.spec.steps)):
        for where, spec in [(("steps", number), recipe.spec.steps[number]), *recipe.tasks(number)]:
            yield from _unknown(spec, where, context)
        yield from _unfilled_tasks(context, number, keys)
    texts: list[tuple[KeyPath, str]] = [(("places", key), text) for key, text in recipe.spec.places.items()]
    for where, text in [*texts, (("state",), recipe.spec.state)]:
        try:
            context.scope().filled(text)
        except UserError as error:
            yield _mistake(recipe, where, str(error))


def _mistake(recipe: Recipe, key: KeyPath, text: str) -> Mistake:
    return Mistake(recipe.place(key), tuple(map(str, key)), text)


def _unknown(spec: TaskSpec, where: KeyPath, context: Context) -> Iterator[Mistake]:
    known = {"rule": list(RULES), "run": list(context.recipe.spec.runs)}
    for name, choices in known.items():
        given = getattr(spec, name)
        if given is not None and given not in choices:
            text = f"there is no {name} {given!r}; there are {', '.join(choices) or 'none'}"
            yield _mistake(context.recipe, (*where, name), text)
    if spec.rule is not None and not context.recipe.spec.runs:
        yield _mistake(context.recipe, (*where, "rule"), "needs a configuration in runs")


def _unfilled_tasks(context: Context, number: int, keys: dict[str, str]) -> Iterator[Mistake]:
    """Fills a step's tasks as things are now: what cannot be filled, and keys that earlier tasks have (``keys``)."""
    recipe, step = context.recipe, context.recipe.spec.steps[number]
    texts = list(recipe.texts())
    where: KeyPath = ("steps", number)
    try:
        counted = _counted(step, context)
        for where, spec, run, scope in _instances(context, number):
            unknown = list(_unfilled(recipe, [one for one in texts if one[0][: len(where)] == where], scope))
            yield from unknown
            if unknown or not counted or not _wanted(spec, scope):
                continue
            key = _filled(spec, step.title, run, scope, context)[0].key
            if key in keys:
                text = f"{key!r} is the key of the task at {keys[key]} too; give each task one of its own"
                yield _mistake(recipe, (*where, "key"), text)
            keys[key] = str(recipe.place(where))
    except UserError as error:
        yield _mistake(recipe, where, str(error))


def _unfilled(recipe: Recipe, texts: Sequence[tuple[KeyPath, str]], scope: Scope) -> Iterator[Mistake]:
    for key, text in texts:
        try:
            for name in placeholders(text):
                scope.value(name)
        except UserError as error:
            yield _mistake(recipe, key, str(error))
