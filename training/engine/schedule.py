"""Builds batches, optimiser and learning-rate schedule once before a run begins, so that errors show early."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from training.base.errors import UserError

if TYPE_CHECKING:
    from training.engine.trainer import SpeechTrainer

logger = logging.getLogger(__name__)

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


def check(trainer: SpeechTrainer) -> int:
    """Steps of the whole run; `UserError` where training could not begin; says where the warm-up is longer than the run.

    Changes nothing."""
    with _refused("training: no batches can be made", "give more data, or fewer processes"):
        batches = len(trainer.get_train_dataloader())
    steps = steps_of(trainer, batches)
    _check_warmup(trainer, steps)
    what = f"training.lr_scheduler_type: {_scheduler(trainer)} cannot be made for {steps} steps"
    with _refused(what, "training.lr_scheduler_kwargs gives it what it needs"):
        nothing = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trainer.args.learning_rate)
        trainer.create_scheduler(steps, nothing)
    trainer.lr_scheduler = None
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # theirs is made of the wrapped model
        with _refused(f"training.optim: {_named(trainer.args.optim)} cannot be made", "choose another"):
            trainer.create_optimizer()
        trainer.optimizer = None
    return steps


def steps_of(trainer: SpeechTrainer, batches: int) -> int:
    """Optimiser steps of the whole run, with so many batches in an epoch."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return arguments.max_steps
    each = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    return math.ceil(arguments.num_train_epochs * each)


def _check_warmup(trainer: SpeechTrainer, steps: int) -> None:
    warmup = trainer.args.get_warmup_steps(steps)
    if warmup < steps or (not trainer.one_cycle and trainer.args.lr_scheduler_type in WITHOUT_WARMUP):
        return
    if trainer.one_cycle and warmup > steps:
        raise UserError(
            f"training.warmup_steps: {warmup}, but the run has {steps} steps, and one cycle goes up and down in them; "
            "lower it, or set training.warmup_ratio"
        )
    logger.warning(
        f"warning: training.warmup_steps: {warmup}, but the run has {steps} steps: the run ends in the warm-up, and the "
        f"learning rate reaches {steps / warmup:.0%} of training.learning_rate; a tenth of the run is usual: "
        "training.warmup_steps=null training.warmup_ratio=0.1"
    )


def _scheduler(trainer: SpeechTrainer) -> str:
    return "onecycle" if trainer.one_cycle else _named(trainer.args.lr_scheduler_type)


def _named(value: object) -> str:
    """A name, also of transformers' enumerations."""
    return str(getattr(value, "value", value))


@contextmanager
def _refused(what: str, hint: str) -> Iterator[None]:
    """Turn the errors of a library into a `UserError` that names the setting."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f"{what} ({error}); {hint}") from error
