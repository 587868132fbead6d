"""A recipe: a YAML file of steps, each a command with what it reads and writes.

The file is checked as a whole before anything is done; each mistake is reported with its file and line.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from training.base.errors import UserError
from training.config.source import BASE_KEY, Layer, Mistake, Place, read_file
from training.recipes.placeholders import placeholders

FOLDER = Path("configs/recipes")
INSTALLED = Path("share/polyvox/recipes")
"""Where a wheel puts them, below the environment (see ``pyproject.toml``)."""
KeyPath = tuple[str | int, ...]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Words = Text | list[Text | list[Text]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSpec(_Strict):
    """One command. Texts may have placeholders."""

    command: Words | None = None
    key: Text | None = None
    """Its name in the record of what was done; the step's title where there is none."""
    inputs: list[Text] = []
    """Files and folders that it reads: a change of one does it again."""
    outputs: list[Text] = []
    """Files and folders that it writes: one that is gone does it again."""
    outputs_if_made: list[Text] = []
    """Files that it writes only sometimes: one that it has written and that is gone does it again."""
    settings: Literal["weights", "scores"] | dict[str, Text] | list[Text | list[Text]] | None = None
    """What decides the result beside ``inputs``: the configuration's settings of the weights or of the scores, or values,
    or words; the words of the command where nothing is said."""
    run: Text | None = None
    """The training configuration that ``{paths…}`` and ``{run…}`` mean; the first one where there is none."""
    each: Text | None = None
    """A list: the task is repeated for each item (``{item}``); ``runs``: for each training configuration."""
    when: Text | None = None
    unless: Text | None = None
    """A value: the task is left out where ``when`` is null, false or empty, or where ``unless`` is not."""
    again: Words | None = None
    """Words that are added to the command where an earlier attempt was begun."""
    resumes: bool = False
    """Whether the command goes on with what an earlier attempt at the same inputs has left; then without ``again``."""
    kept_if_there: Text | None = None
    """A file: where it is there and the recipe has not made it, its folder is used as it is."""
    rule: Text | None = None
    """What only Python can decide, by the name of a function of `training.recipes.rules`."""


class StepSpec(TaskSpec):
    """What is announced as ``[n/N] title``: one command, or several ``tasks``, for which ``run`` and ``each`` count too."""

    title: Text
    machines: Literal["all", "first"] = "all"
    """Where several machines train together: whether only the first one does this."""
    only_if: Text | None = None
    """A value: the step is not counted where it is null, false or empty when the call begins."""
    tasks: list[TaskSpec] = []


class Spec(_Strict):
    """The whole file."""

    runs: dict[str, Text | None] = {}
    """Training configurations by name; null: the command that walks through the recipe gives it."""
    variables: dict[str, Any] = {}
    """Values for placeholders."""
    installation: bool = False
    """Whether a script has installed the environment as step 1."""
    launcher: Literal["accelerate"] | None = None
    state: Text = "outputs/.recipe_{recipe}.json"
    """The record of what was done."""
    places: dict[str, Text] = {}
    """Places that are printed at the end."""
    steps: list[StepSpec]


@dataclass(frozen=True)
class Recipe:
    """A checked file, and where its keys were written."""

    path: Path
    spec: Spec
    places: dict[KeyPath, Place] = field(repr=False)

    def place(self, key: KeyPath) -> Place:
        """File and line of a key, or of the nearest one around it."""
        return Layer(places=self.places).place(key, Place(str(self.path)))  # type: ignore[arg-type]

    def tasks(self, number: int) -> list[tuple[KeyPath, TaskSpec]]:
        """The tasks of a step, counted from 0, and where they were written."""
        step = self.spec.steps[number]
        if step.tasks:
            return [(("steps", number, "tasks", i), task) for i, task in enumerate(step.tasks)]
        return [(("steps", number), step)]

    def texts(self) -> Iterator[tuple[KeyPath, str]]:
        """Every text of a task that has placeholders, and where it was written."""
        for number in range(len(self.spec.steps)):
            for where, task in self.tasks(number):
                named = task.model_dump(include=set(TaskSpec.model_fields))
                yield from _with_placeholders(named, where)


def ours(name: str) -> Path:
    """The file of one of our recipes: that of the working directory, of the checkout that this module lies in, or of the
    environment that a wheel was installed in."""
    here = FOLDER / f"{name}.yaml"
    checkout = Path(__file__).parents[2] / here
    installed = Path(sysconfig.get_path("data")) / INSTALLED / here.name
    return next((path for path in (here, checkout) if path.exists()), installed)


def load(path: Path) -> Recipe:
    """Read a recipe and its ``_base_``; `UserError` that lists every mistake with file and line."""
    layer = _layer(path, ())
    mistakes = list(layer.mistakes)
    spec = None
    if not mistakes:
        try:
            spec = Spec.model_validate(layer.data)
        except ValidationError as error:
            from training.config.explain import findings

            main = Place(str(path))
            mistakes += [
                Mistake(layer.place(one.key, main), one.key, one.text)
                for one in findings(error, layer.data, Spec)
            ]
    if spec is not None:
        mistakes += _inconsistent(spec, layer, path)
    refuse(mistakes)
    assert spec is not None
    return Recipe(path, spec, layer.places)  # type: ignore[arg-type]


def refuse(mistakes: list[Mistake]) -> None:
    """`UserError` where there are any."""
    lines = list(dict.fromkeys(map(str, mistakes)))
    if lines:
        head = [] if len(lines) == 1 else [f"{len(lines)} mistakes in the recipe:"]
        raise UserError("\n  ".join([*head, *lines]))


def _layer(path: Path, above: tuple[Path, ...]) -> Layer:
    """The file over its base: blocks (`runs`, `variables`, `places`) are merged, anything else is replaced."""
    layer = read_file(path, interpolates=False)
    base = layer.data.pop(BASE_KEY, None)
    if base is None or layer.mistakes:
        return layer
    at = layer.places[BASE_KEY,]
    if not isinstance(base, str) or path.resolve() in above:
        text = "must be the path of one file" if not isinstance(base, str) else "goes in a circle"
        layer.mistakes.append(Mistake(at, (BASE_KEY,), f"{text} (got {base!r})"))
        return layer
    below = _layer(path.parent / base, (*above, path.resolve()))
    for key, value in layer.data.items():
        old = below.data.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        if not both:
            below.places = {p: where for p, where in below.places.items() if p[0] != key}
        below.data[key] = {**old, **value} if both else value  # type: ignore[dict-item]
    below.places |= layer.places
    return below


def _inconsistent(spec: Spec, layer: Layer, path: Path) -> Iterator[Mistake]:
    main = Place(str(path))
    if not spec.steps:
        yield Mistake(layer.place(("steps",), main), ("steps",), "has no step")
    for number, step in enumerate(spec.steps):
        where: Any = ("steps", number)
        own = (set(TaskSpec.model_fields) - {"run", "each"}) & step.model_fields_set
        if step.tasks and own:
            text = f"stands beside tasks; move {', '.join(sorted(own))} into a task"
            yield Mistake(layer.place((*where, min(own)), main), (*where, min(own)), text)
        elif not step.tasks and step.command is None:
            yield Mistake(layer.place(where, main), where, "has neither command nor tasks")
        for i, task in enumerate(step.tasks):
            if task.command is None:
                inner: Any = (*where, "tasks", i)
                yield Mistake(layer.place(inner, main), inner, "has no command")


def _with_placeholders(value: Any, where: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        if any(True for _ in placeholders(value)):
            yield where, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _with_placeholders(item, (*where, key))
