"""The flags of guide 002: each has its effect on the resolved configuration, written with ``-`` or with ``_``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shard_assets import folder

from training.base.errors import UserError
from training.cli import train
from training.config.arguments import training_arguments
from training.config.compat import guide_flags
from training.config.load import load_config
from training.config.schema import Config
from training.data.sources.shards.index import estimate
from training.data.sources.shards.source import load_shards

ROOT = Path(__file__).parents[2]
PROD = ROOT / "configs" / "prod_domain_whisper.yaml"
FIXTURES = ROOT / "tests" / "fixtures"
SCRIPT = "whisper_dyslexia_cross_domain.py "

EFFECTS: dict[str, tuple[list[str], str, Any]] = {
    "--run-name": (["my_experiment"], "output.experiment_name", "my_experiment"),
    "--base-model": (["openai/whisper-small"], "model.name", "openai/whisper-small"),
    "--num-train-epochs": (["7"], "training.num_train_epochs", 7),
    "--per-device-train-batch-size": (["3"], "training.batch_size", 3),
    "--grad-accum": (["5"], "training.gradient_accumulation_steps", 5),
    "--learning-rate": (["2e-5"], "training.learning_rate", 2e-5),
    "--lr-scheduler-type": (["cosine"], "training.lr_scheduler_type", "cosine"),
    "--warmup-steps": (["500"], "training.warmup_steps", 500),
    "--eval-steps": (["500"], "training.eval_steps", 500),
    "--save-steps": (["3000"], "training.save_steps", 3000),
    "--save-total-limit": (["9"], "training.save_total_limit", 9),
    "--num-workers": (["24"], "dataloader.num_workers", 24),
    "--target-sr": (["8000"], "audio.sample_rate", 8000),
    "--bf16": ([], "training.bf16", True),
    "--gradient_checkpointing": ([], "training.gradient_checkpointing", True),
    "--persistent-workers": ([], "training.dataloader_persistent_workers", True),
    "--login-wandb": ([], "training.report_to", "wandb"),
    "--dataset-root": (["here"], "data.shards.train", (Path("here/train"),)),
}
"""Flag → its value in a command line, a key, and what then stands there."""
NO_KEY = {"--samples-per-shard", "--login-hf"}


def resolved(*arguments: str, config: Path = PROD) -> Config:
    args = train.parser().parse_intermixed_args(["--config", str(config), *arguments])
    return load_config(args.config, [*guide_flags.overrides(args), *args.overrides])


def look(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def test_the_table_lists_every_flag_of_the_guide() -> None:
    names = json.loads((FIXTURES / "guide_names.json").read_text(encoding="utf-8"))["002"]
    flags = {name.removeprefix(SCRIPT) for name in names["Commands and flags"] if name.startswith(SCRIPT)}
    assert flags == {*EFFECTS, *NO_KEY}


@pytest.mark.parametrize("flag", EFFECTS)
def test_a_flag_has_its_effect_in_either_spelling(flag: str, tmp_path: Path) -> None:
    value, key, then = EFFECTS[flag]
    bare = tmp_path / "bare.yaml"
    bare.write_text("model: {type: domain_whisper, name: openai/whisper-tiny}\n", encoding="utf-8")
    assert look(resolved(config=bare), key) != then
    for spelling in (flag[2:].replace("_", "-"), flag[2:].replace("-", "_")):
        assert look(resolved(f"--{spelling}", *value, config=bare), key) == then


def test_the_guides_advanced_command_is_what_the_trainer_is_given() -> None:
    line = (
        "--dataset-root data --base-model openai/whisper-large-v3 --run-name advanced_experiment --learning-rate 1e-4 "
        "--num-train-epochs 200 --per-device-train-batch-size 8 --grad-accum 4 --warmup-steps 2000 --eval-steps 1000 "
        "--save-steps 1000 --bf16 --login-wandb"
    )
    given = training_arguments(resolved(*line.split()))
    assert {name: given[name] for name in ("learning_rate", "num_train_epochs", "warmup_steps", "bf16")} == {
        "learning_rate": 1e-4,
        "num_train_epochs": 200,
        "warmup_steps": 2000,
        "bf16": True,
    }
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (8, 4)
    assert (given["eval_steps"], given["save_steps"], given["lr_scheduler_type"]) == (1000, 1000, "cosine")
    assert given["run_name"] == "advanced_experiment"
    assert given["output_dir"] == str(Path("outputs/advanced_experiment"))
    assert (given["report_to"], given["dataloader_persistent_workers"]) == (["wandb"], True)


def test_the_shipped_configuration_trains_what_the_guide_does() -> None:
    config = load_config(PROD)
    model: Any = config.model
    assert (model.type, model.name, model.domains) == (
        "domain_whisper",
        "openai/whisper-large-v3",
        ("normal", "dyslexic"),
    )
    assert (config.training.trainable, model.unfreeze.encoder_blocks, model.unfreeze.decoder_blocks) == (
        "blocks",
        4,
        4,
    )
    given = training_arguments(config)
    assert (given["learning_rate"], given["warmup_steps"], given["lr_scheduler_type"]) == (
        1e-4,
        2000,
        "cosine",
    )
    assert (given["bf16"], given["activation_checkpointing"]) == (True, True)


def test_folders_of_a_data_set_are_taken_as_far_as_they_are_there(tmp_path: Path) -> None:
    for name in ("train", "train_normal", "val_small", "val_small_normal"):
        (tmp_path / name).mkdir()
    shards = resolved("--dataset-root", str(tmp_path)).data.shards
    assert shards is not None
    assert shards.train == (tmp_path / "train", tmp_path / "train_normal")
    assert shards.dev == (tmp_path / "val_small", tmp_path / "val_small_normal")
    assert shards.domains == {
        "train": "dyslexic",
        "train_normal": "normal",
        "val_small": "dyslexic",
        "val_small_normal": "normal",
    }
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "val_small_normal")
    shards = resolved("--dataset-root", str(tmp_path)).data.shards
    assert shards is not None
    assert (shards.train, shards.dev) == ((tmp_path / "train_normal",), (tmp_path / "val_small",))
    assert shards.domains == {"train_normal": "normal", "val_small": "dyslexic"}


def test_a_data_set_takes_the_place_of_manifests() -> None:
    config = resolved("--dataset-root", "here", config=ROOT / "configs" / "dev_domain_whisper.yaml")
    assert config.data.source.kind == "shards"
    assert config.data.shards.domains == {}


def test_names_are_text_whatever_they_look_like() -> None:
    config = resolved("--run-name", "001", "--checkpoint-dir", "runs: 1, [x]", "--dataset-root", "a, b: [c]")
    assert (config.output.experiment_name, config.output.dir) == ("001", Path("runs: 1, [x]"))
    assert config.data.shards is not None and config.data.shards.train == (Path("a, b: [c]/train"),)


def test_steps_of_warm_up_take_the_place_of_a_share() -> None:
    config = resolved("--warmup-steps", "10", config=ROOT / "configs" / "dev_domain_whisper.yaml")
    assert (config.training.warmup_steps, config.training.warmup_ratio) == (10, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "--num-train-epochs 3 --num_epochs 5",
            "--num_epochs 5 and --num_train_epochs 3 both stand for training.num_train_epochs; leave out one of them",
        ),
        (
            "--base-model a/b --checkpoint runs/c",
            "--base_model a/b and --checkpoint runs/c both stand for model.name",
        ),
        ("--lr 1e-4 --learning-rate 2e-4", "both stand for training.learning_rate"),
    ],
)
def test_two_names_of_a_key_with_different_values_are_refused(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolved(*line.split())


def test_two_names_of_a_key_may_agree_and_a_name_may_come_twice() -> None:
    assert resolved("--lr", "1e-3", "--learning-rate", "1e-3").training.learning_rate == 1e-3
    assert resolved("--lr", "1e-3", "--lr", "2e-3").training.learning_rate == 2e-3


def test_a_key_after_the_flags_decides() -> None:
    assert resolved("--learning-rate", "1e-3", "training.learning_rate=2e-3").training.learning_rate == 2e-3


def test_a_mistake_in_a_flag_names_its_key() -> None:
    with pytest.raises(UserError, match=r"command line: training\.eval_steps"):
        resolved("--eval-steps", "often")


def test_samples_per_shard_are_not_needed() -> None:
    args = train.parser().parse_args(["--config", str(PROD), "--samples-per-shard", "1000"])
    assert guide_flags.overrides(args) == []
    assert guide_flags.notes(args) == [
        "--samples-per-shard 1000: not needed, samples are counted from the archives' headers"
    ]


def test_the_metadata_that_the_guide_prints_loads_as_it_stands(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", {"shard_000000": 3}, domain="dyslexic")
    shutil.copy(FIXTURES / "guide_002_metadata.json", path / "metadata.json")
    source = load_shards(path)
    assert len(source) == 3
    assert source.notes == (
        f"{path}/metadata.json says 10,000 samples, the shards hold 3",
        f"{path}/metadata.json says 1,000 samples in shard_000000.tar, it holds 3",
    )
    assert estimate(path, 1) == 10_000
