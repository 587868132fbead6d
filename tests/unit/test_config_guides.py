"""The configurations that the guides print load as they stand, and each of their keys has an effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.config.arguments import environment, training_arguments
from training.config.load import load_config
from training.config.schema import Config

FIXTURES = Path(__file__).parents[1] / "fixtures"
GUIDE_FILES = sorted(FIXTURES.glob("guide_00[34]_*.yaml"))


def argument(name: str) -> Callable[[Config], Any]:
    """What the trainer is given."""
    return lambda config: training_arguments(config)[name]


def resolved(path: str) -> Callable[[Config], Any]:
    """What stands in the resolved configuration."""

    def look(config: Config) -> Any:
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        return value

    return look


# (fixture, key): (what is observed, what the guide's value makes of it, another value, what that makes of it)
Effect = tuple[Callable[[Config], Any], Any, str, Any]

MODEL: dict[str, Effect] = {
    "model.name": (resolved("model.name"), "openai/whisper-tiny", "a/b", "a/b"),
    "model.type": (lambda c: type(c.model).__module__, "training.models.whisper.config", "e2e", None),
    "model.language": (resolved("model.language"), "vi", "ko", "ko"),
    "model.task": (resolved("model.tasks"), ("transcribe", "translate"), "translate", ("translate",)),
}
STEP: dict[str, Effect] = {
    "training.batch_size": (argument("per_device_train_batch_size"), 1, "3", 3),
    "training.gradient_accumulation_steps": (argument("gradient_accumulation_steps"), 4, "2", 2),
    "training.learning_rate": (argument("learning_rate"), 1e-4, "2e-3", 2e-3),
    "training.num_train_epochs": (argument("num_train_epochs"), 2, "0.5", 0.5),
    "training.fp16": (argument("fp16"), True, "false", False),
    "output.dir": (
        argument("output_dir"),
        str(Path("training/outputs/dev_whisper")),
        "x/y",
        str(Path("x/y")),
    ),
}
EFFECTS: dict[tuple[str, str], Effect] = {
    **{("guide_003_options", key): effect for key, effect in {**MODEL, **STEP}.items()},
    ("guide_003_options", "training.gradient_checkpointing"): (
        argument("activation_checkpointing"),
        True,
        "false",
        False,
    ),
    **{("guide_004_dev_whisper", key): effect for key, effect in {**MODEL, **STEP}.items()},
    ("guide_004_dev_whisper", "training.lr_scheduler_type"): (
        argument("lr_scheduler_type"),
        "linear",
        "cosine",
        "cosine",
    ),
    ("guide_004_dev_whisper", "training.warmup_ratio"): (argument("warmup_steps"), 0.1, "0", 0),
    ("guide_004_dev_whisper", "training.weight_decay"): (argument("weight_decay"), 0.01, "0", 0),
    ("guide_004_dev_whisper", "training.max_grad_norm"): (argument("max_grad_norm"), 1.0, "5", 5.0),
    ("guide_004_dev_whisper", "training.max_steps"): (argument("max_steps"), 100, "7", 7),
    ("guide_004_dev_whisper", "training.gradient_checkpointing"): (
        argument("activation_checkpointing_kwargs"),
        None,
        "true",
        {"use_reentrant": False},
    ),
    ("guide_004_dev_whisper", "training.eval_steps"): (argument("eval_steps"), 25, "10", 10),
    ("guide_004_dev_whisper", "training.save_steps"): (argument("save_steps"), 50, "75", 75),
    ("guide_004_dev_whisper", "training.logging_steps"): (argument("logging_steps"), 10, "1", 1),
    ("guide_004_dev_whisper", "output.experiment_name"): (argument("run_name"), "whisper_tiny_dev", "n", "n"),
    ("guide_004_dev_e2e", "model.type"): (
        lambda c: type(c.model).__module__,
        "training.models.e2e.config",
        "whisper",
        None,
    ),
    ("guide_004_dev_e2e", "model.encoder"): (
        resolved("model.encoder"),
        "facebook/wav2vec2-base",
        "a/b",
        "a/b",
    ),
    ("guide_004_dev_e2e", "model.decoder"): (
        resolved("model.decoder"),
        "facebook/mbart-large-50",
        "a/b",
        "a/b",
    ),
    ("guide_004_dev_e2e", "model.add_adapter"): (resolved("model.add_adapter"), True, "false", False),
    ("guide_004_dev_e2e", "model.freeze_encoder"): (resolved("training.freeze_encoder"), True, "null", None),
    ("guide_004_dev_e2e", "training.batch_size"): STEP["training.batch_size"],
    ("guide_004_dev_e2e", "training.gradient_accumulation_steps"): (
        argument("gradient_accumulation_steps"),
        8,
        "1",
        1,
    ),
    ("guide_004_dev_e2e", "training.learning_rate"): (argument("learning_rate"), 1e-5, "3e-5", 3e-5),
    ("guide_004_dev_e2e", "training.lr_scheduler_type"): (
        argument("lr_scheduler_type"),
        "cosine",
        "constant",
        "constant",
    ),
    ("guide_004_dev_e2e", "training.warmup_ratio"): (argument("warmup_steps"), 0.15, "0.5", 0.5),
    ("guide_004_dev_e2e", "training.fp16"): STEP["training.fp16"],
    ("guide_004_dev_e2e", "training.gradient_checkpointing"): (
        argument("activation_checkpointing"),
        False,
        "true",
        True,
    ),
    ("guide_004_dev_e2e", "training.freeze_feature_encoder"): (
        resolved("training.freeze_feature_encoder"),
        True,
        "false",
        False,
    ),
    ("guide_004_dev_e2e", "training.freeze_encoder_epochs"): (
        resolved("training.freeze_encoder_epochs"),
        999,
        "2",
        2,
    ),
    ("guide_004_dev_e2e", "output.dir"): (
        environment,
        {"TENSORBOARD_LOGGING_DIR": str(Path("training/outputs/dev_e2e/logs"))},
        "x",
        {"TENSORBOARD_LOGGING_DIR": str(Path("x/logs"))},
    ),
    ("guide_004_dev_e2e", "output.experiment_name"): (argument("run_name"), "e2e_base_dev", "n", "n"),
    ("guide_004_base", "paths.data_root"): (resolved("data.audio_root"), Path(), "/mnt", Path("/mnt")),
    ("guide_004_base", "paths.manifest_path"): (
        resolved("paths.manifest_path"),
        Path("data/export/manifest.tsv"),
        "m.csv",
        Path("m.csv"),
    ),
    ("guide_004_base", "paths.splits_dir"): (
        resolved("data.train"),
        Path("data/splits/train.csv"),
        "s",
        Path("s/train.csv"),
    ),
    ("guide_004_base", "paths.output_dir"): (
        resolved("output.dir"),
        Path("training/outputs/guide_004_base"),
        "o",
        Path("o/guide_004_base"),
    ),
    ("guide_004_base", "audio.sample_rate"): (resolved("audio.sample_rate"), 16000, "8000", 8000),
    ("guide_004_base", "audio.max_length_seconds"): (resolved("audio.max_length_seconds"), 30.0, "20", 20.0),
    ("guide_004_base", "training.seed"): (argument("seed"), 42, "7", 7),
    ("guide_004_base", "training.eval_strategy"): (argument("eval_strategy"), "steps", "epoch", "epoch"),
    ("guide_004_base", "training.logging_steps"): (argument("eval_steps"), 50, "20", 20),
    ("guide_004_base", "training.save_total_limit"): (argument("save_total_limit"), 3, "1", 1),
    ("guide_004_base", "training.load_best_model_at_end"): (
        argument("load_best_model_at_end"),
        True,
        "false",
        False,
    ),
    ("guide_004_base", "training.metric_for_best_model"): (
        argument("metric_for_best_model"),
        "eval_loss",
        "cer",
        "eval_cer",
    ),
    ("guide_004_base", "training.greater_is_better"): (argument("greater_is_better"), False, "true", True),
    ("guide_004_base", "training.report_to"): (
        argument("report_to"),
        ["tensorboard"],
        "[tensorboard, wandb]",
        ["tensorboard", "wandb"],
    ),
    ("guide_004_base", "dataloader.num_workers"): (argument("dataloader_num_workers"), 4, "0", 0),
    ("guide_004_base", "dataloader.pin_memory"): (argument("dataloader_pin_memory"), True, "false", False),
    ("guide_004_base", "dataloader.prefetch_factor"): (argument("dataloader_prefetch_factor"), 2, "5", 5),
    ("guide_004_inheritance", "_base_"): (resolved("training.metric_for_best_model"), "eval_loss", "", None),
    ("guide_004_inheritance", "model.name"): (resolved("model.name"), "openai/whisper-medium", "a/b", "a/b"),
}


def leaves(block: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in block.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def written() -> list[tuple[str, str]]:
    return [(file.stem, key) for file in GUIDE_FILES for key in leaves(yaml.safe_load(file.read_text()))]


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """The guides' files side by side, the base also under the name that the others call it by."""
    for file in GUIDE_FILES:
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "base.yaml").write_text((FIXTURES / "guide_004_base.yaml").read_text())
    return tmp_path


def test_the_table_lists_every_key_and_no_other() -> None:
    assert len(GUIDE_FILES) == 5
    assert sorted(EFFECTS) == sorted(written())


@pytest.mark.parametrize(("name", "key"), written())
def test_key_has_its_effect(guide: Path, name: str, key: str) -> None:
    observe, expected, _, _ = EFFECTS[name, key]
    assert observe(load_config(guide / f"{name}.yaml")) == expected


@pytest.mark.parametrize(
    ("name", "key"), [one for one in written() if one[1] not in ("_base_", "model.type")]
)
def test_another_value_has_another_effect(guide: Path, name: str, key: str) -> None:
    observe, expected, other, then = EFFECTS[name, key]
    changed = (guide / f"{name}.yaml").read_text().splitlines()
    at = _line_of(changed, key)
    changed[at] = changed[at].partition(":")[0] + f": {other}"
    (guide / f"{name}.yaml").write_text("\n".join(changed))
    assert then != expected
    assert observe(load_config(guide / f"{name}.yaml")) == then


def _line_of(lines: list[str], key: str) -> int:
    block, name = key.split(".")
    start = lines.index(f"{block}:")
    return next(at for at in range(start + 1, len(lines)) if lines[at].startswith(f"  {name}:"))


def test_without_its_base_the_inheriting_file_has_our_default(guide: Path) -> None:
    file = guide / "guide_004_inheritance.yaml"
    file.write_text(file.read_text().replace('_base_: "base.yaml"', ""))
    assert load_config(file).training.metric_for_best_model is None
