"""What is said of a warm-up that is as long as the run, or longer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from training.base.errors import UserError
from training.engine.schedule import _check_warmup


def trainer(warmup: int, *, one_cycle: bool, scheduler: str = "linear") -> Any:
    arguments = SimpleNamespace(get_warmup_steps=lambda steps: warmup, lr_scheduler_type=scheduler)
    return SimpleNamespace(args=arguments, one_cycle=one_cycle)


def test_one_cycle_that_cannot_come_down_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.warmup_steps: 50, but the run has 20 steps"):
        _check_warmup(trainer(50, one_cycle=True), 20)


@pytest.mark.parametrize("one_cycle", [True, False])
def test_a_run_of_one_step_starts(one_cycle: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A tenth of one step is rounded up to one: a look whether everything is in place must not be refused."""
    with caplog.at_level(logging.WARNING, logger="training"):
        _check_warmup(trainer(1, one_cycle=one_cycle), 1)
    assert "training.warmup_steps: 1, but the run has 1 steps: the run ends in the warm-up" in caplog.text


def test_schedules_without_warm_up_are_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="training"):
        _check_warmup(trainer(5, one_cycle=False, scheduler="constant"), 5)
    assert caplog.text == ""
