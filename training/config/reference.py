"""``docs/configuration.md``, written from the schema: ``python -m training.config.reference``.

``--check`` writes nothing and ends with status 1 when the file is not what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.config.schema import Config

TARGET = Path(__file__).parents[2] / "docs" / "configuration.md"
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
NAMES = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    type(None): "null",
}

OPENING = """\
# Configuration

Written from the schema by `python -m training.config.reference`; change the schema, not this file.

A configuration is a YAML file. `_base_` names the files that it builds on: a path or a list of paths, relative
to the file; later ones win over earlier ones, and the file over all. Mappings are merged key by key, anything
else is replaced. `${paths.splits_dir}` is filled in with the value of that key, `${oc.env:HOME}` with a variable
of the environment. On the command line, `key=value` comes last:

    polyvox train --config configs/dev_whisper.yaml training.learning_rate=1e-5 'training.freeze=[encoder]'

Scalars are those of YAML 1.2: only `true` and `false` are truth values (`no` is a text, as in `eval_strategy: no`),
and `1e-5` is a number. All mistakes are reported together, each as `file:line: key: what is wrong`, with exit
status 2. The resolved configuration is saved as `config.yaml` in the run's folder, and this file alone repeats
the run.
"""


def document() -> str:
    """The whole reference, as Markdown."""
    parts = [OPENING, *_blocks(), *_architectures(), *_verbatim()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _blocks() -> Iterator[str]:
    for name, field in Config.model_fields.items():
        if name != "model":
            yield from _section(f"`{name}`", _model_of(field.annotation), level=2, path=name)


def _architectures() -> Iterator[str]:
    from training.models import lookup

    yield "## `model`\n\n" + _sentence(Config.model_fields["model"].description)
    for name in lookup.available():
        yield from _section(f"`model` with `type: {name}`", lookup.options_class(name), level=3, path="model")


def _section(title: str, model: type[BaseModel] | None, *, level: int, path: str) -> Iterator[str]:
    assert model is not None, title
    # Where a class has none of its own, pydantic hands out BaseModel's docstring.
    own = inspect.cleandoc(model.__dict__.get("__doc__") or "").replace("``", "`")
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    table = ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows]
    yield "\n".join([f"{'#' * level} {title}\n", *([f"{own}\n"] if own else []), *table])
    for name, field in model.model_fields.items():
        if inner := _model_of(field.annotation):
            yield from _section(f"`{path}.{name}`", inner, level=level + 1, path=f"{path}.{name}")


def _row(name: str, field: FieldInfo) -> str:
    cells = [
        f"`{name}`",
        _type(field.annotation, field.metadata),
        _default(field),
        _sentence(field.description),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, dict | tuple | list) and not value:
        return "`{}`" if isinstance(value, dict) else "`[]`"
    if isinstance(value, dict):
        value = "{" + ", ".join(f"{key}: {one}" for key, one in value.items()) + "}"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`" if str(value) else '`""`'


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words, with its bounds."""
    bounds = [
        f"{sign} {getattr(m, name):g}"
        for m in _flat(metadata)
        for name, sign in BOUNDS.items()
        if hasattr(m, name)
    ]
    return " ".join([_bare_type(annotation), *bounds])


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for one in metadata:
        yield from _flat(one.metadata) if isinstance(one, FieldInfo) else [one]


def _bare_type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0], parts[1:])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is Union or type(annotation).__name__ == "UnionType":
        return " or ".join(dict.fromkeys(_bare_type(part) for part in parts))
    if origin in (tuple, list, Sequence):
        return f"list of {_bare_type(parts[0])}"
    if origin is dict:
        return f"mapping of {_bare_type(parts[0])} to {_bare_type(parts[1])}"
    if _model_of(annotation):
        return "block, see below"
    return NAMES.get(annotation) or (
        "any" if annotation is Any else str(getattr(annotation, "__name__", annotation))
    )


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _verbatim() -> Iterator[str]:
    from training.config import merge, verbatim

    names = ", ".join(f"`{name}`" for name in sorted(verbatim.fields()))
    yield (
        "## `training`: fields of `Seq2SeqTrainingArguments`\n\nThese are taken by their own names and checked "
        "against their types; [transformers' documentation]"
        "(https://huggingface.co/docs/transformers/main_classes/trainer) says what they do.\n\n" + names
    )
    aliases = [f"| `training.{old}` | `training.{new}` |" for old, new in merge.ALIASES.items()]
    moved = [f"| `model.{name}` | `training.{name}` |" for name in merge.MOVED_FROM_MODEL]
    moved += [f"| `training.{name}` | `model.{name}` |" for name in merge.MOVED_TO_MODEL]
    yield "\n".join(
        ["## Second names\n", "| also accepted as | kept as |", "| --- | --- |", *moved, *aliases]
    )
    refused = [
        f"| `{name}` | {reason.replace('|', chr(92) + '|')} |"
        for name, reason in sorted(verbatim.REFUSED.items())
    ]
    yield "\n".join(["## Not taken in `training`\n", "| name | why |", "| --- | --- |", *refused])


def main(argv: Sequence[str] | None = None) -> int:
    """Write the reference, or with ``--check`` compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when the file is stale")
    if parser.parse_args(argv).check:
        fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == document()
        print(f"{TARGET}: {'fresh' if fresh else 'stale, run python -m training.config.reference'}")
        return 0 if fresh else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document(), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
