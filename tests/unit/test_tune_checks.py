"""A search is refused before its first trial, and searches something sensible when it is told nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tune_assets

from training import cli
from training.base.errors import UserError
from training.config.load import load_config
from training.tuning import checks, space

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tune_assets.config(tmp_path)


def refused(path: Path, *texts: str, overrides: tuple[str, ...] = ()) -> str:
    dimensions, fixed = space.parse(texts)
    given = [*overrides, *fixed]
    with pytest.raises(UserError) as caught:
        checks.check_space(path, given, dimensions, checks.tunable(path, given))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.learnin_rate=log:1e-5:1e-3", "is not a known key; did you mean learning_rate?"),
        ("model.droput=0:0.3", "is not a known key; did you mean dropout?"),
        ("learning_rate=0.1:1.0", "did you mean training.learning_rate?"),
        ("model.dropout=0:1", "should be less than 1"),
        ("training.batch_size=choice:4,eight", "should be a valid integer"),
        ("training.batch_size=0:8", "should be greater than or equal to 1"),
        ("training.batch_size=1.5:8", "should be a valid integer"),
        ("training.lr_scheduler_type=choice:linear,cosin", "did you mean cosine?"),
        ("training.metric_for_best_model=choice:eval_wer,eval_cer", "cannot be compared"),
        ("data.dev_share=0.1:0.3", "cannot be compared"),
        ("output.experiment_name=choice:a,b", "cannot be compared"),
    ],
)
def test_keys_and_values_that_no_trial_could_take(config: Path, text: str, said: str) -> None:
    message = refused(config, text)
    assert message.startswith("--search ") and said in message


def test_a_key_is_not_searched_and_set(config: Path) -> None:
    text = "training.learning_rate=1e-4:1e-3"
    assert "is set to one value as well" in refused(config, text, overrides=("training.learning_rate=0.1",))


def test_contradictions_between_two_searched_keys_are_seen(config: Path) -> None:
    said = refused(config, "training.warmup_ratio=0.1:0.2", "training.warmup_steps=choice:null,10")
    assert "warmup_ratio and warmup_steps are both set" in said


def test_trials_without_a_dev_score_are_refused(config: Path) -> None:
    with pytest.raises(UserError, match="eval_strategy"):
        checks.tunable(config, ["training.eval_strategy=no"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_*.yaml")), ids=lambda path: path.stem)
def test_the_default_search_is_valid_for_every_shipped_configuration(path: Path) -> None:
    overrides = [] if "digits" not in path.stem else ["data.manifest=x.tsv"]
    config = load_config(path, overrides)
    found = checks.default_space(config)
    keys = [one.key for one in found]
    assert keys[0] == "training.learning_rate" and "training.weight_decay" in keys
    assert ("model.dropout" in keys) == ("ctc" in path.stem)
    assert found[0].low < config.training.learning_rate < found[0].high  # type: ignore[union-attr]
    assert checks.check_space(path, overrides, found, config) == found


@pytest.mark.parametrize(
    ("overrides", "key", "low", "high"),
    [
        (["training.warmup_steps=400"], "training.warmup_steps", 100, 1600),
        (["training.warmup_steps=2"], "training.warmup_steps", 1, 8),
        (["training.warmup_steps=0.1"], "training.warmup_steps", 0.025, 0.4),
        (["training.warmup_steps=0"], "training.warmup_steps", 0.02, 0.3),
        ([], "training.warmup_ratio", 0.02, 0.3),
    ],
)
def test_warm_up_is_searched_in_the_unit_that_it_is_given_in(
    config: Path, overrides: list[str], key: str, low: float, high: float
) -> None:
    """Below 1 `warmup_steps` is a share of the run: a search of steps may not reach down there."""
    found = checks.default_space(load_config(config, overrides))[1]
    assert found == space.Range(key, low, high)
    assert checks.default_space(load_config(config, ["training.lr_scheduler_type=constant"]))[1].key != key


def test_dropout_of_sizes_is_found(config: Path) -> None:
    text = config.read_text(encoding="utf8")
    whisper = config.with_name("whisper.yaml")
    whisper.write_text(
        "model: {type: whisper, sizes: {vocab_size: 320, d_model: 32, dropout: 0.1}}\n"
        + "\n".join(line for line in text.splitlines() if not line.startswith("model")),
        encoding="utf8",
    )
    assert "model.sizes.dropout" in [one.key for one in checks.default_space(load_config(whisper))]


def test_without_the_extra_the_command_says_what_to_install(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main(["tune", "--config", str(config)]) == 2
    assert "pip install 'polyvox[tune]'" in capsys.readouterr().err
    assert not (config.parent / "run_tune").exists()


def test_a_mistake_leaves_no_folder(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    command = ["tune", "--config", str(config), "--search", "training.learnin_rate=1:2"]
    assert cli.main(command) == 2
    assert "did you mean learning_rate?" in capsys.readouterr().err
    assert not (config.parent / "run_tune").exists()


def test_several_processes_are_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["tune", "--config", str(config)]) == 2
    assert "one process" in capsys.readouterr().err
