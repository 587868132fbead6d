"""Learning rates of single parameters: what is new may need a hundred times the rate of what is pretrained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training.engine.freezing import short_name


def give(optimizer: torch.optim.Optimizer, model: torch.nn.Module, rates: Mapping[str, float]) -> None:
    """Move parameters into groups of the optimiser with their own rates; all else of their groups stays.

    Args:
        optimizer: new, without a schedule.
        model: that is trained.
        rates: of a `training.engine.freezing.TrainablePlan`.
    """
    rate_of = {
        id(parameter): rates[short_name(name)]
        for name, parameter in model.named_parameters()
        if short_name(name) in rates
    }
    for group in list(optimizer.param_groups):
        for rate in sorted({rate_of[id(one)] for one in group["params"] if id(one) in rate_of}):
            moved = [one for one in group["params"] if rate_of.get(id(one)) == rate]
            group["params"] = [one for one in group["params"] if rate_of.get(id(one)) != rate]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})
