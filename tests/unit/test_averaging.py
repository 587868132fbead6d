"""Averaged weights: the moving average, checkpoints that hold it, the mean of the last checkpoints; one cycle."""

from __future__ import annotations

import json

import pytest
import torch
from ctc_assets import TEXTS, options
from safetensors.torch import load_file, save_file
from trainer_assets import losses, make_trainer, weights

from training.engine.averaging import RAW, MovingAverage, keep_better, mean_weights
from training.models.architecture import BuildContext
from training.models.ctc.build import Ctc


def make(folder, *, dropout: float = 0.1, **changes):
    words = "Xin chào các bạn hôm nay chúng ta meeting nhé"
    built = Ctc.build(
        options("transformer", dropout=dropout),
        BuildContext(texts=lambda: [("transcribe", "vi", text) for text in (*TEXTS, words)]),
    )
    return make_trainer(folder, architecture=built, **changes)


def test_the_average_is_the_sum_with_falling_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, 0.9)
    wanted = 0.0
    for step in range(1, 40):
        torch.nn.init.constant_(model.weight, float(step))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    assert average.shadow["weight"].item() == pytest.approx(wanted, rel=1e-5)


def test_weights_come_back_after_evaluation_even_when_it_fails():
    model = torch.nn.Linear(2, 2)
    average = MovingAverage(model, 0.5)
    before = model.weight.detach().clone()
    torch.nn.init.constant_(model.weight, 3.0)
    with pytest.raises(RuntimeError), average.applied(model):
        assert torch.equal(model.weight, before)
        raise RuntimeError
    assert (model.weight == 3.0).all()


def test_checkpoints_hold_the_average_and_the_run_goes_on_from_the_weights(tmp_path):
    options_ = {"steps": 6, "save_strategy": "steps", "save_steps": 2, "options": {"ema_decay": 0.8}}
    whole = make(tmp_path / "whole", **options_)
    whole.train()
    averaged = load_file(tmp_path / "whole" / "checkpoint-2" / "model.safetensors")
    raw = load_file(tmp_path / "whole" / "checkpoint-2" / RAW)
    assert not torch.equal(averaged["ctc_head.weight"], raw["ctc_head.weight"])
    again = make(tmp_path / "whole", **options_)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert losses(again) == losses(whole)
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


def test_training_itself_does_not_feel_the_average_and_ends_with_it(tmp_path):
    plain, averaged = make(tmp_path / "a"), make(tmp_path / "b", options={"ema_decay": 0.9})
    for trainer in (plain, averaged):
        torch.manual_seed(0)
        trainer.train()
    assert losses(plain) == losses(averaged)
    name = "ctc_head.weight"
    assert not torch.equal(weights(plain)[name], weights(averaged)[name])


def test_evaluation_scores_the_average(tmp_path):
    trainer = make(tmp_path, dropout=0.0, options={"ema_decay": 0.9})
    trainer.train()
    wanted = trainer.evaluate()["eval_loss"]
    ruined = make(tmp_path / "ruined", dropout=0.0, options={"ema_decay": 0.9})
    ruined.average.shadow = weights(trainer)
    for value in ruined.model.parameters():
        torch.nn.init.zeros_(value)
    assert ruined.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-6)
    assert not any(value.any() for value in ruined.model.parameters())


def test_the_mean_of_checkpoints(tmp_path):
    for i, value in enumerate((1.0, 2.0, 6.0)):
        (tmp_path / str(i)).mkdir()
        tensors = {"a": torch.full((2,), value), "n": torch.tensor([i])}
        save_file(tensors, tmp_path / str(i) / "model.safetensors")
        save_file({"a": torch.zeros(2)}, tmp_path / str(i) / RAW)
    mean = mean_weights([tmp_path / str(i) for i in range(3)])
    assert mean["a"].tolist() == [3.0, 3.0] and mean["n"].tolist() == [0]


@pytest.mark.parametrize(
    ("score", "greater", "stays"),
    [(0.1, False, True), (0.2, False, True), (0.3, False, False), (0.3, True, True), (0.1, True, False)],
)
def test_the_mean_is_kept_only_where_it_is_no_worse(tmp_path, score, greater, stays):
    model = torch.nn.Linear(1, 1)
    (tmp_path / "c").mkdir()
    save_file(
        {"weight": torch.full((1, 1), 7.0), "bias": torch.zeros(1)}, tmp_path / "c" / "model.safetensors"
    )
    before = model.weight.item()
    found = keep_better(model, [tmp_path / "c"], lambda: score, 0.2, greater_is_better=greater)
    assert found == (stays, score)
    assert model.weight.item() == (7.0 if stays else before)


def test_one_cycle_rises_and_falls_and_is_resumed(tmp_path):
    options_ = {
        "steps": 10,
        "save_strategy": "steps",
        "save_steps": 4,
        "warmup_steps": 3,
        "options": {"one_cycle": True},
    }
    whole = make(tmp_path, **options_)
    whole.train()
    rates = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    peak = max(range(len(rates)), key=rates.__getitem__)
    assert rates[peak] == pytest.approx(1e-3, rel=0.15) and 1 <= peak <= 4
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4
    saved = json.loads((tmp_path / "checkpoint-4" / "scheduler.json").read_text())
    assert saved["total_steps"] == 11
    again = make(tmp_path, **options_)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert losses(again) == losses(whole)
