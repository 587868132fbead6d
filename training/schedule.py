"""Batches, optimiser and learning-rate schedule, made once for a look: what cannot be made is said before a run begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from training.errors import UserError

if TYPE_CHECKING:
    from training.run import Report
    from training.trainer import SpeechTrainer

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


def check(trainer: SpeechTrainer, report: Report) -> None:
    """`UserError` where training could not begin; says where the warm-up is longer than the run. Changes nothing."""
    with _refused("training"):
        batches = len(trainer.get_train_dataloader())
    steps = steps_of(trainer, batches)
    _check_warmup(trainer, steps, report)
    with _refused(f"training.lr_scheduler_type: cannot be made for {steps} steps"):
        nothing = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trainer.args.learning_rate)
        trainer.create_scheduler(steps, nothing)
    trainer.lr_scheduler = None
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # theirs is made of the wrapped model
        with _refused("training.optim: cannot be made"):
            trainer.create_optimizer()
        trainer.optimizer = None


def steps_of(trainer: SpeechTrainer, batches: int) -> int:
    """Optimiser steps of the whole run, with so many batches in an epoch."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return arguments.max_steps
    each = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    return math.ceil(arguments.num_train_epochs * each)


def _check_warmup(trainer: SpeechTrainer, steps: int, report: Report) -> None:
    warmup = trainer.args.get_warmup_steps(steps)
    if warmup < steps or (not trainer.one_cycle and trainer.args.lr_scheduler_type in WITHOUT_WARMUP):
        return
    if trainer.one_cycle:
        raise UserError(
            f"training.warmup_steps: {warmup}, but the run has {steps} steps, and one cycle goes up and down in them; "
            "lower it, or set training.warmup_ratio"
        )
    report(
        f"training.warmup_steps: {warmup}, but the run has {steps} steps: the learning rate gets no further than "
        f"{steps / warmup:.0%} of training.learning_rate"
    )


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What a library refuses as a `UserError` that says what it was about."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f"{what} ({error}); see docs/configuration.md") from error
