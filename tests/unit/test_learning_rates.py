"""Parameters with learning rates of their own: which they are, what the optimiser does, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trainer_assets
import whisper_assets

from training.base.errors import UserError
from training.engine import freezing

CONVOLUTIONS = {"model.encoder.conv1.weight", "model.encoder.conv1.bias"}


def rates(wanted: dict[str, float], **how: Any) -> dict[str, float]:
    _, plan = freezing.apply(whisper_assets.tiny(), rates=wanted, **how)
    return dict(plan.rates)


def test_a_group_or_a_pattern_names_the_parameters() -> None:
    found = rates({"model.encoder.conv1.*": 1e-2, "decoder": 1e-6})
    assert {name for name, rate in found.items() if rate == 1e-2} == CONVOLUTIONS
    assert all(name.startswith("model.decoder.") for name, rate in found.items() if rate == 1e-6)
    assert rates({}) == {}


@pytest.mark.parametrize(
    ("wanted", "how", "message"),
    [
        (
            {"ctc_heat.*": 1e-2},
            {},
            r"training\.learning_rates: 'ctc_heat\.\*' matches no parameter; the nearest",
        ),
        (
            {"encoder": 1e-2},
            {"freeze_encoder": True},
            r"training\.learning_rates: encoder: none of its .* learns",
        ),
        ({"encoder": 1e-2, "*.conv1.*": 1e-3}, {}, r"\*\.conv1\.\*: .* has a rate by 'encoder' already"),
    ],
)
def test_mistakes_are_told(wanted: dict[str, float], how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rates(wanted, **how)


@pytest.mark.parametrize("one_cycle", [False, True])
def test_each_parameter_moves_at_its_own_rate(tmp_path: Path, one_cycle: bool) -> None:
    """Adam's first steps are as long as the rate; decay, warm-up and schedule are those of all."""
    own = dict.fromkeys(CONVOLUTIONS, 0.1)
    trainer = trainer_assets.make_trainer(
        tmp_path,
        steps=2,
        options={"rates": own, "one_cycle": one_cycle},
        weight_decay=0.1,
        lr_scheduler_type="constant",
        warmup_steps=0,
    )
    before = {name: one.detach().clone() for name, one in trainer.bare_model.named_parameters()}
    trainer.train()
    moved = {
        name: float((one.detach() - before[name]).abs().max())
        for name, one in trainer.bare_model.named_parameters()
    }
    assert min(moved[name] for name in CONVOLUTIONS) > 30 * moved["model.encoder.conv2.weight"] > 0
    groups = trainer.optimizer.param_groups  # type: ignore[union-attr]
    assert sum(len(group["params"]) for group in groups) == sum(
        one.requires_grad for one in trainer.bare_model.parameters()
    )
    assert [group["weight_decay"] for group in groups] == [
        0.1,
        0.0,
        0.1,
        0.0,
    ]  # biases have none, as elsewhere


def test_a_run_with_adapters_has_them_too(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    found = rates({"*q_proj*": 1e-3}, mode="lora")
    assert found and all("lora_" in name for name in found)
    assert set(found.values()) == {1e-3}
