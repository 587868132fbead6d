"""Domains by their literal commands: chosen by one domain's score, evaluated, compared, judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_project

pytestmark = pytest.mark.recipe

SCORED = (
    "training.max_steps=4",
    "training.eval_strategy=steps",
    "training.eval_steps=2",
    "training.save_steps=2",
    "training.early_stopping_patience=5",
)


def make(folder: Path) -> Path:
    """The tiny project with adults and children by turns."""
    config = tiny_project.make(folder)
    for name in ("train", "dev"):
        tiny_project.with_domains(folder / f"{name}.csv")
    return config


def polyvox(*arguments: object) -> str:
    done = tiny_project.polyvox(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_chosen_evaluated_and_judged_by_domain(tmp_path: Path) -> None:
    config = make(tmp_path)
    done = tiny_project.train(config, "training.metric_for_best_model=cer_child", *SCORED)
    assert done.returncode == 0, done.stderr
    assert "cer_child" in done.stdout and "cer_adult" in done.stdout
    results = json.loads((tmp_path / "run" / "train_results.json").read_text(encoding="utf8"))
    history = tiny_project.history(tmp_path)
    scores = [record["eval_cer_child"] for record in history if "eval_cer_child" in record]
    assert len(scores) == 2 and results["best_metric"] == pytest.approx(min(scores))

    for name, model in (("base", "run/checkpoint-2"), ("adapted", "run")):
        said = polyvox(
            *(
                "evaluate",
                "--model_dir",
                tmp_path / model,
                "--test_csv",
                tmp_path / "dev.csv",
                "--name",
                name,
            ),
            *("--output", tmp_path / "results"),
        )
        assert "domain gap, child − adult: WER " in said
    tables = [tmp_path / "results" / f"{name}_predictions.csv" for name in ("base", "adapted")]
    said = polyvox("compare", *tables, "--target", "child", "--output", tmp_path / "judged.json")
    judged = json.loads((tmp_path / "judged.json").read_text(encoding="utf8"))
    assert said.splitlines()[-2] == f"verdict: {judged['verdict']['line']}"
    assert judged["verdict"]["others"] == ["adult"] and set(judged["by_domain"]) == {"adult", "child"}


def test_a_domain_that_no_dev_row_has_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    done = tiny_project.train(make(tmp_path), "training.metric_for_best_model=cer_dyslexic", *SCORED)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "error: training.metric_for_best_model: eval_cer_dyslexic is no score of the dev split, whose rows have the "
        "domains adult, child; there are eval_loss, eval_wer_adult" in done.stderr
    )
    assert not (tmp_path / "run").exists()
