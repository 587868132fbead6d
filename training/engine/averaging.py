"""Averages of weights: a moving one during training (EMA), and one of the last checkpoints at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.system_files import listed

RAW = "unaveraged.safetensors"
"""Beside a checkpoint's averaged weights: those that training goes on from."""


class MovingAverage:
    """Exponential moving average of what is trained (Polyak and Juditsky, 1992).

    Early steps count less than ``decay`` says, ``(1 + n) / (10 + n)`` at most, so that the random weights of the
    beginning are soon forgotten. Buffers (a batch norm's statistics) are taken as they are.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in _trained(model)}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        """After optimiser step number ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in _trained(model):
            self.shadow[name].lerp_(value, 1 - decay)

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """The model with averaged weights; gives those that it had, and puts them back."""
        raw = {name: value.detach().clone() for name, value in _trained(model)}
        self.copy_to(model)
        try:
            yield raw
        finally:
            _assign(model, raw)

    def copy_to(self, model: torch.nn.Module) -> None:
        """Give the model the averaged weights."""
        _assign(model, self.shadow)

    def restore(self, model: torch.nn.Module, folder: Path) -> None:
        """Go on from a checkpoint: the model holds its averaged weights, and gets those beside them."""
        self.shadow = {name: value.detach().clone() for name, value in _trained(model)}
        path = folder / RAW
        if path.is_file():
            _assign(model, load_file(path))


def save_raw(raw: dict[str, torch.Tensor], folder: Path) -> None:
    """The weights that training goes on from, beside a checkpoint's averaged ones."""
    save_file({name: value.cpu().contiguous() for name, value in raw.items()}, folder / RAW)


class MovingAverageCallback(TrainerCallback):
    """Moves the average after every optimiser step."""

    def __init__(self, average: MovingAverage, model: Callable[[], torch.nn.Module]) -> None:
        self.average, self.model = average, model

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.average.update(self.model(), state.global_step)


@torch.no_grad()
def mean_weights(folders: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of the checkpoints' weights by name, in float32; integers are the first checkpoint's."""
    total: dict[str, torch.Tensor] = {}
    for folder in folders:
        for path in sorted(listed(folder, "model*.safetensors")):
            for name, value in load_file(path).items():
                if name not in total:
                    total[name] = value.float() if value.is_floating_point() else value
                elif value.is_floating_point():
                    total[name] += value.float()
    return {
        name: value / len(folders) if value.is_floating_point() else value for name, value in total.items()
    }


def keep_better(
    model: torch.nn.Module,
    folders: Sequence[Path],
    score: Callable[[], float],
    best: float,
    *,
    greater_is_better: bool,
) -> tuple[bool, float]:
    """Put the mean of the checkpoints into the model and keep it where its ``score`` is no worse than ``best``.

    Returns whether it stays, and its score.
    """
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(mean_weights(folders), strict=False)
    found = score()
    stays = found >= best if greater_is_better else found <= best
    if not stays:
        model.load_state_dict(before)
    return stays, found


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


@torch.no_grad()
def _assign(model: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])
