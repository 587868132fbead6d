"""Disk space of a run: checkpoints, the final model, logs."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.config.agreement import checkpoint_steps, checkpoint_strategy, keeps_best
from training.config.schema import Config
from training.models.architecture import Architecture
from training.planning import memory
from training.planning.duration import Steps, evaluations, interval

MIB = 2**20
RECORD = 1200
"""Bytes that a logged record takes in all: TensorBoard's events, metrics/ and the lines (measured: see tests)."""
REMEDY = "free some, lower training.save_total_limit, or name another folder with output.dir"
STATE = 64 * 2**10
"""Bytes of a checkpoint beside weights, optimiser and processor: random states, schedule, settings."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of a run's folder.

    Attributes:
        checkpoint: of one checkpoint.
        kept: checkpoints that stay; None where no limit is set and the number of steps is not known.
        extra: checkpoints that are there for a moment beside them: a new one is written before an old one is removed.
        final: of the final model.
        logs: of the logs.
        free: space in the place of the run's folder.
    """

    checkpoint: int
    kept: int | None
    extra: int
    final: int
    logs: int
    free: int

    @property
    def most(self) -> int:
        """Bytes when the folder is largest."""
        kept = (self.kept or 0) * self.checkpoint
        return max(kept + self.extra * self.checkpoint, kept + self.final) + self.logs

    @property
    def fits(self) -> bool:
        """Whether there is space for it."""
        return self.most <= self.free

    def __str__(self) -> str:
        each = in_units(self.checkpoint)
        if self.kept is None:
            return f"{each} for each checkpoint, {in_units(self.final)} for the final model; {in_units(self.free)} free"
        logs = f", logs {in_units(self.logs)}" if self.logs else ""
        extra = " (one more while it is written)" if self.extra else ""
        return (
            f"up to {in_units(self.most)}, {in_units(self.free)} free: {self.kept} checkpoints of {each}{extra}, "
            f"final model {in_units(self.final)}{logs}"
        )


def estimate(
    config: Config, architecture: Architecture, model: Any, steps: Steps | None, *, real: bool = True
) -> Disk:
    """What a run's folder will hold.

    Args:
        config: of the run.
        architecture: with its processor where that is here.
        model: what is trained of it, on any device; with adapters checkpoints hold these alone.
        steps: of the run; None: not known.
        real: whether the processor is here; otherwise its files are not counted.

    Returns:
        Bytes, from the sizes of the parameters and of the processor's files.
    """
    processor = processor_bytes(architecture) if real else 0
    weights, learning = _bytes(model), _bytes(model, learning=True)
    adapters = hasattr(model, "merge_and_unload")
    average = learning if config.training.ema_decay is not None else 0
    states, _ = memory.optimiser_bytes(model, memory.optimiser(config))
    saves = None if steps is None else saved(config, steps)
    records = 0 if steps is None else evaluations(config, steps) + logged(config, steps)
    kept, extra = kept_checkpoints(config, saves)
    return Disk(
        # Each checkpoint also has the records so far, as JSON.
        checkpoint=(learning if adapters else weights) + states + average + processor + STATE + 250 * records,
        kept=kept,
        extra=extra,
        final=_bytes(architecture.model) + processor,
        logs=RECORD * records,
        free=shutil.disk_usage(_there(config.output.dir)).free,
    )


def logged(config: Config, steps: Steps) -> int:
    """Logged records of the training loss."""
    return steps.total // interval(config.training.logging_steps, steps.total)


def kept_checkpoints(config: Config, saves: int | None) -> tuple[int | None, int]:
    """Checkpoints that stay of so many, and those that are there beside them for a moment."""
    limit = config.training.save_total_limit
    if limit is None or checkpoint_strategy(config.training) == "no":
        return saves, 0
    if limit == 1 and keeps_best(config.training):
        limit = 2  # the best one and the last one
    return (limit, 1) if saves is None else (min(saves, limit), int(saves > limit))


def saved(config: Config, steps: Steps) -> int:
    """Checkpoints that the run writes, those included that it removes."""
    kind = checkpoint_strategy(config.training)
    if kind == "no":
        return 0
    if kind == "epoch":
        return math.ceil(steps.epochs)
    if kind == "best":
        return evaluations(config, steps)
    every = checkpoint_steps(config.training) or config.training.logging_steps
    return math.ceil(steps.total / interval(every, steps.total))


def processor_bytes(architecture: Architecture) -> int:
    """Bytes of tokenizer and feature extractor: they are written to a temporary folder."""
    with TemporaryDirectory() as folder:
        architecture.save_processor(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def in_units(size: int) -> str:
    """``23 MiB``, ``1.93 GiB``."""
    return f"{size / memory.GIB:.2f} GiB" if size >= memory.GIB else f"{math.ceil(size / MIB)} MiB"


def _bytes(model: Any, *, learning: bool = False) -> int:
    """Of the parameters and buffers that are saved, shared ones once; ``learning``: of trained parameters alone."""
    if learning:
        return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    tied = sum(p.numel() * p.element_size() for p in model.parameters())
    names = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    return tied + sum(b.numel() * b.element_size() for name, b in model.named_buffers() if name in names)


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
