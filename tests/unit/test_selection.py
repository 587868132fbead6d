"""The score that checkpoints are chosen by must be one that the dev rows give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eval_assets import example
from trainer_assets import make_trainer
from transformers import EarlyStoppingCallback

from training.base.errors import UserError
from training.engine.selection import check_metric

ROWS = [
    example("a", "một hai", "one two", domain="child"),
    example("b", "ba", domain="adult"),
    example("c", "...", domain="silent"),
]
TASKS = ("transcribe", "translate")


@pytest.mark.parametrize(
    "metric", ["eval_loss", "eval_wer", "cer_child", "eval_wer_adult", "eval_bleu_child"]
)
def test_scores_that_the_dev_rows_give(metric: str) -> None:
    check_metric(metric, ROWS, TASKS)


@pytest.mark.parametrize(
    "metric", ["eval_cer_dyslexic", "eval_cer_spaces", "eval_bleu_adult", "eval_wer_silent"]
)
def test_scores_that_they_do_not_give_are_refused_with_those_that_there_are(metric: str) -> None:
    with pytest.raises(UserError) as caught:
        check_metric(metric, ROWS, TASKS)
    message = str(caught.value)
    assert message.startswith(
        f"training.metric_for_best_model: {metric} is no score of the dev split, whose rows have the domains adult, "
        "child, silent; there are eval_loss, "
    )
    assert "eval_cer_child" in message


def test_rows_without_domains_and_tasks_that_the_model_has_not() -> None:
    with pytest.raises(UserError, match=r"have no domains \(the column domain\)"):
        check_metric("cer_child", [example("a", "một")], TASKS)
    with pytest.raises(UserError, match="eval_bleu_child is no score"):
        check_metric("eval_bleu_child", ROWS, ("transcribe",))
    check_metric("eval_cer_spaces", [example("a", "한 국", language="ko")], TASKS)


def test_training_stops_and_keeps_its_model_by_the_score_of_one_domain(tmp_path: Path) -> None:
    """The domain's score is made worse and worse behind the first evaluation, that of all rows better and better."""
    made = make_trainer(
        tmp_path,
        steps=6,
        domains=("dyslexic", "normal"),
        callbacks=(EarlyStoppingCallback(2),),
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_cer_dyslexic",
        greater_is_better=False,
    )
    given, seen = made.score, []

    def score(examples: list[Any], hypotheses: list[Any]) -> dict[str, float]:
        scores = given(examples, hypotheses)
        assert {"cer", "cer_dyslexic", "cer_normal"} <= scores.keys()
        seen.append(scores)
        return scores | {"cer_dyslexic": 50.0 + len(seen), "cer": 50.0 - len(seen)}

    made.score = score
    made.train()
    assert made.state.global_step == 3 and len(seen) == 3
    assert made.state.best_metric == 51.0
    assert Path(str(made.state.best_model_checkpoint)).name == "checkpoint-1"
