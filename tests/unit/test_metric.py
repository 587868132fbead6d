"""The table of scores: every reader of it agrees on names, tasks and directions."""

from __future__ import annotations

import pytest
from eval_assets import example, said

from training.config.arguments import best_metric
from training.config.load import config_from
from training.data.example import TASKS, TRANSCRIBE, TRANSLATE
from training.data.metric import BLEU, CER, LABELS, METRICS, WER, base_score, higher_is_better, main_metric
from training.evaluation.metrics import STATISTICS, task_statistics
from training.evaluation.quick_scores import corpus_scores
from training.evaluation.rows import join


def test_each_score_of_texts_is_computed() -> None:
    assert list(STATISTICS) == [one for one in METRICS.values() if one.corpus]
    assert list(LABELS) == [one.name for one in STATISTICS]


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_gives_the_scores_that_a_checkpoint_can_be_chosen_by(task: str) -> None:
    examples = [example("a", "one two", "one two", language="en", target="en")]
    hypotheses = [said("a", "one three", task)]
    found = corpus_scores(examples, hypotheses)
    assert list(found) == list(task_statistics(task, join(examples, hypotheses)[task]))
    assert main_metric(task).name in found


@pytest.mark.parametrize(
    ("logged", "name", "higher"),
    [
        ("eval_wer", "wer", False),
        ("eval_cer_child", "cer", False),
        ("bleu_child", "bleu", True),
        ("eval_chrf", "chrf", True),
        ("eval_onset_mae", "onset_mae", False),
        ("eval_loss", "loss", False),
        ("eval_reward", "reward", True),
    ],
)
def test_the_direction_of_a_logged_score(logged: str, name: str, higher: bool) -> None:
    assert (base_score(logged), higher_is_better(logged)) == (name, higher)


@pytest.mark.parametrize(("task", "named"), [("both", WER), (TRANSCRIBE, WER), (TRANSLATE, BLEU)])
def test_the_default_choice_of_checkpoints_is_the_main_score_of_the_task(task: str, named: object) -> None:
    config = config_from({"model": {"type": "whisper", "name": "x", "task": task}})
    assert main_metric(task) is named and best_metric(config) == main_metric(task).logged


def test_a_target_is_passed_in_the_direction_of_its_score() -> None:
    assert (CER.wanted, CER.reached(9.9), CER.reached(10.0)) == ("< 10", True, False)
    assert (BLEU.wanted, BLEU.reached(25.0), BLEU.reached(25.1), BLEU.reached(None)) == (
        "> 25",
        False,
        True,
        False,
    )
