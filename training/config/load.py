"""From a YAML file, its ``_base_`` chain and ``key=value`` overrides to a checked `Config`.

OmegaConf merges and interpolates, pydantic checks. Every mistake that can be seen is reported in one
`UserError`, each with the file and line that it was written in.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from training.base.errors import UserError
from training.config import explain, shipped
from training.config.blocks import Inconsistent, Training
from training.config.compat import phases, voxlm_keys
from training.config.compat.flat import complete, has_sizes, unfold
from training.config.hardware import choose, inherits_profile
from training.config.merge import at, interpolate, merge, move_keys
from training.config.schema import MADE, Config
from training.config.source import BASE_KEY, Layer, Mistake, Place, read_file, read_override

OptionsOf = Callable[[str], type[BaseModel]]
"""The schema of the ``model:`` block for a value of ``model.type``; `UserError` when there is none."""

RESOLVED_NAME = "config.yaml"
DEFAULT_TYPE = "whisper"


def architecture_options(model_type: str) -> type[BaseModel]:
    """The schema of the architecture that ``model.type`` names."""
    from training.models.lookup import options_class

    return options_class(model_type)


def load_config(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    options: OptionsOf | None = None,
    hardware: str | None = None,
) -> Config:
    """Read, merge, interpolate and check.

    Args:
        path: the file; ``configs/NAME.yaml`` is found outside of a checkout too.
        overrides: ``key=value`` texts, applied last.
        options: replaces the look-up of the architecture's schema.
        hardware: a hardware profile that is taken whole, one of `training.config.profile_names.CHOICES`.

    Raises:
        UserError: lists every mistake.
    """
    path = shipped.located(Path(path))
    layers = _layers(path, overrides)
    chosen = choose(layers, hardware)
    return _resolve(chosen, Place(str(path)), path.stem, options or architecture_options)


def names_hardware(path: Path | str, overrides: Sequence[str] = ()) -> bool:
    """Whether a configuration, one of its bases or an override says anything of the hardware.

    Of a file that cannot be read True: its mistake is all that there is to say."""
    layers = _layers(shipped.located(Path(path)), overrides)
    return any(layer.mistakes for layer in layers) or inherits_profile(layers)


def _layers(path: Path, overrides: Sequence[str]) -> list[Layer]:
    return [*_chain(path, ()), *map(read_override, overrides)]


def config_from(
    mapping: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str = "run",
    options: OptionsOf | None = None,
) -> Config:
    """`load_config` for a mapping made by a program instead of a file."""
    layers = [Layer(data=copy.deepcopy(dict(mapping))), *map(read_override, overrides)]
    return _resolve(layers, Place("configuration"), name, options or architecture_options)


def save_resolved(config: Config, folder: Path, *, replace: bool = False) -> Path:
    """Write ``config.yaml``, from which alone the run can be repeated.

    Another run's ``config.yaml`` in the folder is a `UserError` that names what differs, unless ``replace``.
    """
    target = Path(folder) / RESOLVED_NAME
    text = config.to_yaml()
    if target.exists() and not replace and target.read_text(encoding="utf-8") != text:
        keys = ", ".join(differences(read_file(target).data, config.as_dict()))
        raise UserError(
            f"{target}: belongs to a run with other settings ({keys}); choose another output.dir or remove the folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{RESOLVED_NAME}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


def differences(old: Any, new: Any, path: str = "") -> Iterable[str]:
    """Keys, as dotted paths, whose values are not the same in both."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield path


def _chain(path: Path, above: tuple[Path, ...], place: Place | None = None) -> list[Layer]:
    """The file's bases, deepest first, then the file itself."""
    real = path.resolve()
    if real in above:
        chain = " → ".join(_short(file) for file in (*above[above.index(real) :], real))
        return [
            Layer(mistakes=[Mistake(place or Place(str(path)), (BASE_KEY,), f"goes in a circle: {chain}")])
        ]
    if place is not None and not path.is_file():
        return [Layer(mistakes=[Mistake(place, (BASE_KEY,), f"there is no file {str(path)!r}")])]
    layer = read_file(path)
    bases = layer.data.pop(BASE_KEY, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    at = layer.places.get((BASE_KEY,), Place(str(path)))
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        layer.mistakes.append(Mistake(at, (BASE_KEY,), f"must be a path or a list of paths (got {bases!r})"))
        bases = []
    below = [one for base in bases for one in _chain(shipped.base_of(path, base), (*above, real), at)]
    return [*below, layer]


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _resolve(layers: Sequence[Layer], main: Place, name: str, options: OptionsOf) -> Config:
    mistakes = [mistake for layer in layers for mistake in layer.mistakes]
    sizes = any(map(has_sizes, layers))
    mistakes += [mistake for layer in layers for mistake in unfold(layer)]
    phase = phases.select(layers)
    mistakes += [mistake for layer in layers for mistake in voxlm_keys.unfold(layer, phase)]
    given = merge(layers)
    mistakes += complete(given, ctc=sizes)
    mistakes += move_keys(given)
    values = interpolate(given, f"{name}_phase2" if phase == 2 else name, mistakes)
    config, findings = _check(values, options)
    # One mistake is enough for a key; and keys of a file that cannot be read do not count as missing.
    unread, known = any(not mistake.key for mistake in mistakes), {mistake.key for mistake in mistakes}
    fresh = [one for one in findings if one.key not in known and not (unread and one.text == explain.MISSING)]
    mistakes += [Mistake(given.place(one.key, main), one.key, one.text) for one in fresh]
    if mistakes or config is None:
        raise UserError(_report(mistakes, layers))
    return config


def _check(values: dict[str, Any], options: OptionsOf) -> tuple[Config | None, list[explain.Finding]]:
    """The checked configuration, or everything that is wrong with it."""
    findings: list[explain.Finding] = []
    model_class = _model_class(values, options, findings)
    training_class, refused = _training_class(values)
    findings += refused
    checker = create_model(
        "Config",
        __base__=Config,
        __cls_kwargs__=MADE,
        model=(model_class, ...),
        training=(training_class, Training()),
    )
    config = _attempt(values, checker, findings)
    if findings:
        findings += _deeper(values, checker, findings)
        return None, findings
    return config, findings


def _model_class(values: dict[str, Any], options: OptionsOf, findings: list[explain.Finding]) -> Any:
    block = values.setdefault("model", None)
    if not isinstance(block, dict):
        return BaseModel | None
    model_type = block.setdefault("type", DEFAULT_TYPE)
    try:
        return options(str(model_type))
    except UserError as error:
        findings.append(explain.unknown_type(model_type, str(error)))
        return dict[str, Any]


def _training_class(values: dict[str, Any]) -> tuple[type[Training], list[explain.Finding]]:
    """`Training`, with the fields of `Seq2SeqTrainingArguments` only where a key needs them (a slow import)."""
    block = values["training"]
    if not isinstance(block, dict) or set(block) <= set(Training.model_fields):
        return Training, []
    from training.config import verbatim

    refused = [name for name in block if name in verbatim.REFUSED]
    findings = [
        explain.refused(("training", name), block.pop(name), verbatim.REFUSED[name]) for name in refused
    ]
    return (Training if set(block) <= set(Training.model_fields) else verbatim.VerbatimTraining), findings


def _attempt(values: dict[str, Any], checker: type[Config], findings: list[explain.Finding]) -> Config | None:
    try:
        checked = checker.model_validate(values)
    except ValidationError as error:
        findings += explain.findings(error, values, checker)
        return None
    return Config.model_construct(**{name: getattr(checked, name) for name in Config.model_fields})


def _deeper(
    values: dict[str, Any], checker: type[Config], known: list[explain.Finding]
) -> list[explain.Finding]:
    """Contradictions between the keys that are right, seen by leaving out those that are wrong."""
    rest = copy.deepcopy(values)
    wrong = [finding.key for finding in known]
    for key in wrong:
        parent = at(rest, key[:-1])
        if isinstance(parent, dict):
            parent.pop(key[-1], None)
    if isinstance(rest.get("model"), dict):
        rest["model"] = None
    relaxed = create_model("Config", __base__=checker, model=(Any, None))
    try:
        relaxed.model_validate(rest)
    except ValidationError as error:
        problems = [p for e in error.errors() for p in _inconsistent(e)]
        fresh = [p for p in problems if not any(key in wrong for key in (p.key, *p.involves))]
        return [explain.Finding(p.key, p.message) for p in fresh]
    return []


def _inconsistent(error: Mapping[str, Any]) -> list[Any]:
    cause = error.get("ctx", {}).get("error")
    return cause.problems if isinstance(cause, Inconsistent) else []


def _report(mistakes: Sequence[Mistake], layers: Sequence[Layer]) -> str:
    """One line each, in the order of the files and lines that they stand in."""
    files = list(dict.fromkeys(place.file for layer in layers for place in layer.places.values()))

    def order(mistake: Mistake) -> tuple[int, int]:
        known = mistake.place.file in files
        return (files.index(mistake.place.file) if known else len(files), mistake.place.line or 0)

    lines = list(dict.fromkeys(str(mistake) for mistake in sorted(mistakes, key=order)))
    if len(lines) == 1:
        return lines[0]
    return "\n  ".join([f"{len(lines)} mistakes in the configuration:", *lines])
