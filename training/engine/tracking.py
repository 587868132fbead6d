"""Data for W&B and TensorBoard beside the curves: the resolved configuration, parameter counts, the use of the GPU.

Keys and accounts are W&B's own affair: it reads ``WANDB_API_KEY``, or what ``wandb login`` stored; none is ours to keep.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.errors import UserError
from training.config.arguments import logging_folder
from training.engine import freezing as trainable

if TYPE_CHECKING:
    from training.config.schema import Config

GIB = 2**30


class TrackingCallback(TrainerCallback):
    """The run's configuration and how many parameters it has and trains, to each reporter that the run has.

    ``rows``: of `training.engine.freezing.table`. Comes after the reporters' own callbacks, which open what is written to.
    """

    def __init__(self, config: Config, rows: Sequence[trainable.Row]) -> None:
        self.config, self.rows = config, rows
        total, learning = trainable.counts(rows)
        self.parameters = {"parameters/total": total, "parameters/trainable": learning}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if "tensorboard" in (args.report_to or ()):
            self._to_tensorboard(state.global_step)
        if "wandb" in (args.report_to or ()):
            self._to_wandb()

    def _to_tensorboard(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(logging_folder(self.config))) as writer:
            writer.add_text("config", indented(self.config.to_yaml()), step)
            writer.add_text("parameters", indented(trainable.format_table(self.rows)), step)
            for name, count in self.parameters.items():
                writer.add_scalar(name, count, step)

    def _to_wandb(self) -> None:
        import wandb

        if wandb.run is not None:
            wandb.run.config.update(
                {"polyvox": self.config.as_dict(), **self.parameters}, allow_val_change=True
            )
            wandb.run.summary.update(self.parameters)


def indented(text: str) -> str:
    """The text as a block of code on TensorBoard's text page, which is Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def gpu_use() -> dict[str, float]:
    """Peak memory of this process on its GPU so far, and how busy the GPU is (percent of the last moment, where
    nvidia-ml-py is installed and the driver tells); empty without a GPU."""
    if not torch.cuda.is_available():
        return {}
    found = {"gpu_peak_memory_gib": torch.cuda.max_memory_allocated() / GIB}
    busy = _gpu_utilisation()
    return found if busy is None else {**found, "gpu_utilisation_percent": busy}


def _gpu_utilisation() -> float | None:
    try:
        return float(torch.cuda.utilization())
    except (ImportError, RuntimeError):  # nvidia-ml-py or the driver is missing
        return None
    except Exception as error:
        # NVML's own errors: a part of a GPU (MIG), for one, has no such figure.
        if type(error).__name__.startswith("NVMLError"):
            return None
        raise


@contextmanager
def closed_at_the_end(config: Config) -> Iterator[None]:
    """W&B's run ends with ours, so that the next one of this process has its own; what it refuses is a `UserError`."""
    named = config.training.report_to
    asked = {named} if isinstance(named, str) else set(named)
    if not asked & {"wandb", "all"} or importlib.util.find_spec("wandb") is None:
        yield
        return
    import wandb

    failed = True
    try:
        yield
        failed = False
    except wandb.errors.Error as error:
        raise UserError(
            f"training.report_to: wandb: {error}; set WANDB_API_KEY, or WANDB_MODE=offline to send it later with "
            "wandb sync, or leave wandb out"
        ) from error
    finally:
        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))
