"""The recipe of docs/recipes.md works as it is printed: it trains, scores, runs a script, and does nothing twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny_project

from training.recipes.recipe import Spec, StepSpec, TaskSpec
from training.recipes.rules import RULES

PAGE = (tiny_project.ROOT / "docs/recipes.md").read_text(encoding="utf8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)
    return found


@pytest.mark.recipe
@pytest.mark.slow
def test_the_documented_recipe(tmp_path: Path) -> None:
    tiny_project.make(tmp_path)
    (tmp_path / "my.yaml").write_text(block("yaml"), encoding="utf8")
    (tmp_path / "count_words.py").write_text(block("python"), encoding="utf8")
    call = ("pipeline", "--recipe", "my.yaml", "--config", "training.max_steps=1", "model:training.seed=2")
    done = tiny_project.polyvox(*call, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[3/3] Count words: 0:0" in done.stdout and "  tiny: " in done.stdout
    assert int((tmp_path / "outputs/results/words.txt").read_text()) >= 0
    again = tiny_project.polyvox(*call, cwd=tmp_path)
    assert again.stdout.count(": nothing to do") == 3, again.stdout + again.stderr
    other = tiny_project.polyvox(*call[:-2], "training.max_steps=2", cwd=tmp_path)
    assert other.returncode == 0 and "kept as" in other.stdout, other.stdout + other.stderr


def test_every_key_and_rule_of_a_recipe_is_documented() -> None:
    names = {*Spec.model_fields, *StepSpec.model_fields, *TaskSpec.model_fields, *RULES}
    told = {
        name for row in re.findall(r"^\| (.*?) \|", PAGE, flags=re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert names - told == set()
