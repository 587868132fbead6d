"""A search is checked before its first trial: its keys, the values at its ends, and what is left out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.config.blocks import Training
from training.config.explain import suggestion
from training.config.load import load_config
from training.config.schema import Config
from training.tuning.space import Choice, Dimension, Range, fractions_where_the_key_has_them

MEASURE_BLOCKS = ("audio", "data", "output", "paths")
MEASURE_KEYS = (
    "evaluation.max_utterances",
    "model.task",
    "model.type",
    "training.eval_steps",
    "training.eval_strategy",
    "training.greater_is_better",
    "training.load_best_model_at_end",
    "training.metric_for_best_model",
)
"""With another value of these the trials' figures are of different things, or lie in different places."""
SPREAD = 5.0
"""The default search goes from the configuration's learning rate divided by this to it multiplied by this."""


def tunable(path: Path, overrides: Sequence[str]) -> Config:
    """The configuration around which is searched; `UserError` where no trial of it could be scored."""
    config = load_config(path, overrides)
    if config.model is None:
        raise UserError(f"{path}: no model: block; see docs/configuration.md")
    if config.training.eval_strategy == "no":
        raise UserError(
            "training.eval_strategy: no, but trials are compared by their score on the dev split; set it to steps "
            "or epoch"
        )
    return config


def check_space(
    path: Path, overrides: Sequence[str], dimensions: Sequence[Dimension], config: Config
) -> list[Dimension]:
    """The dimensions as they are searched; `UserError` for a key or a value that no trial could take."""
    if not dimensions:
        raise UserError("--search: nothing to search; give at least one range or choice")
    fixed = {text.partition("=")[0].strip() for text in overrides}
    for one in dimensions:
        if "." not in one.key:
            raise UserError(f"--search {one}: give the whole key{_homes(one.key, config)}")
        if one.key in MEASURE_KEYS or one.key.split(".")[0] in MEASURE_BLOCKS:
            raise UserError(
                f"--search {one}: trials with other values of {one.key} cannot be compared; set one"
            )
        if one.key in fixed:
            raise UserError(f"--search {one}: {one.key} is set to one value as well; keep one of them")
    known = fractions_where_the_key_has_them(dimensions, config.as_dict())
    for corner in _corners(known):
        try:
            load_config(path, [*overrides, *corner])
        except UserError as error:
            raise UserError(f"--search ({', '.join(corner)}): {error}") from error
    return known


def _homes(name: str, config: Config) -> str:
    """``; did you mean training.learning_rate?`` where a block has the name, or one like it."""
    keys = [f"{block}.{key}" for block, inner in config.as_dict().items() for key in inner or ()]
    return next(
        (f"; did you mean {key}?" for key in keys if key.endswith(f".{name}")), suggestion(name, keys)
    )


def _corners(dimensions: Sequence[Dimension]) -> Iterator[list[str]]:
    """Every key by itself at its ends or choices, then all at their first values, then all at their last."""
    for one in dimensions:
        yield from ([probe] for probe in one.probes)
    yield [one.probes[0] for one in dimensions]
    yield [one.probes[-1] for one in dimensions]


def default_space(config: Config) -> list[Dimension]:
    """Learning rate, warm-up, weight decay, and dropout where the model's options say it."""
    training = config.training
    rate = training.learning_rate or 1e-4
    found: list[Dimension] = [
        Range("training.learning_rate", _rounded(rate / SPREAD), _rounded(rate * SPREAD), log=True)
    ]
    if training.lr_scheduler_type != "constant":
        found.append(_warmup(training))
    found.append(Range("training.weight_decay", 0.0, 0.1))
    assert config.model is not None
    found += [Range(key, 0.0, 0.3) for key in _dropouts(config.model.model_dump(mode="json"), "model")]
    return found


def _warmup(training: Training) -> Range:
    """Around ``warmup_steps`` where that is set (below 1 it is a share of the steps), else shares."""
    if not training.warmup_steps:
        key = "training.warmup_ratio" if training.warmup_steps is None else "training.warmup_steps"
        return Range(key, 0.02, 0.3)
    low, high = training.warmup_steps / 4, training.warmup_steps * 4
    if training.warmup_steps < 1:
        return Range(
            "training.warmup_steps", _rounded(low), _rounded(min(high, 0.5 + training.warmup_steps / 2))
        )
    return Range("training.warmup_steps", _rounded(max(low, 1.0)), _rounded(high))


def _dropouts(block: Mapping[str, Any], path: str) -> Iterator[str]:
    """Keys called ``dropout`` that hold a number."""
    for name, value in block.items():
        if isinstance(value, dict):
            yield from _dropouts(value, f"{path}.{name}")
        elif name == "dropout" and isinstance(value, int | float):
            yield f"{path}.{name}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def described(dimension: Dimension) -> str:
    """A line for the screen."""
    if isinstance(dimension, Choice):
        return f"{dimension.key}: one of {', '.join(dimension.texts)}"
    kind = "whole numbers, " if dimension.whole else ""
    step = f", steps of {dimension.step:g}" if dimension.step is not None else ""
    return f"{dimension.key}: {kind}{dimension.low:g} to {dimension.high:g}{step}{', logarithmic' * dimension.log}"
