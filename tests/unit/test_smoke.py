"""``--smoke``: 100 steps of any configuration; otherwise the epochs of a configuration decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.base.errors import UserError
from training.cli import pipeline, train
from training.config.arguments import SMOKE
from training.config.load import load_config, save_resolved
from training.config.schema import Config

ROOT = Path(__file__).parents[2]
THERE = f"data.train={__file__}"
"""Data are looked for before a training begins, and not read here."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    found: list[Config] = []

    def instead(config: Config, *others: Any) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr(train, "_train", instead)
    monkeypatch.setattr(train, "share_the_cores", lambda: None)
    return found


def test_train(trained: list[Config]) -> None:
    config = ["--config", str(ROOT / "configs/dev_whisper.yaml"), THERE]
    for more in ([], ["--smoke"], ["--smoke", "training.max_steps=7"]):
        assert train.main([*config, *more]) == 0
    assert [one.training.max_steps for one in trained] == [-1, 100, 7]
    assert [str(one.output.dir) for one in trained] == [
        "outputs/dev_whisper",
        *["outputs/dev_whisper_smoke"] * 2,
    ]
    assert [one.output.experiment_name for one in trained] == ["dev_whisper", *["dev_whisper_smoke"] * 2]


def test_a_folder_or_a_name_that_is_given_still_decides(trained: list[Config]) -> None:
    config = ["--config", str(ROOT / "configs/dev_whisper.yaml"), THERE, "--smoke"]
    for more in (["output.dir=elsewhere"], ["output.suffix=''"], ["output.experiment_name=mine"]):
        assert train.main([*config, *more]) == 0
    assert [str(one.output.dir) for one in trained] == [
        "elsewhere",
        "outputs/dev_whisper",
        "outputs/mine_smoke",
    ]


def test_the_suffix_is_put_once_however_often_a_configuration_is_read(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/dev_whisper.yaml", SMOKE)
    again = load_config(save_resolved(config, tmp_path), [])
    assert again.output == config.output and config.output.suffix == ""


def test_a_suffix_that_names_a_folder_is_refused() -> None:
    with pytest.raises(UserError, match=r"output\.suffix"):
        load_config(ROOT / "configs/dev_whisper.yaml", ["output.suffix=/there"])


def test_no_shipped_configuration_ends_before_its_epochs() -> None:
    configs = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if path.stem != "base"]
    assert configs and all(load_config(path).training.max_steps == -1 for path in configs)


def test_the_pipeline_hands_it_to_every_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def stop(args: Any, *others: Any) -> Any:
        asked.append(args.config)
        raise UserError("enough")

    monkeypatch.setattr(pipeline, "plan", stop)
    with pytest.raises(UserError, match="enough"):
        pipeline.main(["--smoke", "--config", "training.seed=2"])
    assert asked == [[*SMOKE, "training.seed=2"]]


def test_downloads_are_of_dry_runs(trained: list[Config]) -> None:
    with pytest.raises(UserError, match="--download belongs to --dry_run"):
        train.main(["--config", str(ROOT / "configs/dev_whisper.yaml"), "--download"])
