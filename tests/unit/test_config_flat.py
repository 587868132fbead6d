"""The flat configuration that a CTC guide prints: every key has its place and an effect there."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.base.errors import UserError
from training.config.arguments import environment, training_arguments
from training.config.load import load_config

GUIDE = Path(__file__).parents[1] / "fixtures" / "guide_001_default.yaml"
LINES = (
    ("use_amp: false", "training.fp16", False),
    ("grad_accum_steps: 4", "training.gradient_accumulation_steps", 4),
    ("grad_clip: 0.5", "training.max_grad_norm", 0.5),
    ("device: cpu\nuse_amp: false", "profile.device", "cpu"),
    ("warmup_epochs: 5", "training.warmup_ratio", 0.1),
    ("validate_every: 5", "training.eval_steps", 0.1),
    ("early_stopping: {enabled: true, patience: 10}", "training.early_stopping_patience", 10),
    ("early_stopping: {enabled: false, patience: 10}", "training.early_stopping_patience", None),
    ("wandb: {enabled: true, project: vi, entity: us}", "output.wandb_project", "vi"),
    ("wandb: {enabled: false, project: vi}", "training.report_to", "tensorboard"),
    ("augmentation: {enabled: true, types: [noise, stretch], prob: 0.4}", "augmentation.speed.prob", 0.4),
    ("augmentation: {enabled: true, types: [noise, stretch], prob: 0.4}", "augmentation.noise.prob", 0.4),
    ("augmentation: {enabled: true, types: [noise, stretch], prob: 0.4}", "augmentation.shift.prob", 0.0),
)


def config(tmp_path, *lines, guide=True, overrides=()):
    text = GUIDE.read_text(encoding="utf8") if guide else "model: {type: ctc}\ndata: {dev: d.csv}\n"
    kept = [
        line for line in text.splitlines() if line.split(":")[0] not in {one.split(":")[0] for one in lines}
    ]
    path = tmp_path / "default.yaml"
    path.write_text("\n".join([*kept, *lines]), encoding="utf8")
    return load_config(path, overrides)


def look(value, path):
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_the_printed_block_loads_as_it_stands_and_means_what_it_says(tmp_path):
    found = config(tmp_path)
    model = found.model
    assert type(model).__module__ == "training.models.ctc.config"
    assert (model.d_model, model.num_encoder_layers, model.num_heads) == (256, 6, 4)
    assert (model.d_ff, model.dropout) == (1024, 0.1)
    assert (model.sample_rate, found.audio.sample_rate) == (16000, 16000)
    assert (model.n_mels, model.n_fft, model.hop_length) == (80, 400, 160)
    given = training_arguments(found)
    assert given["per_device_train_batch_size"] == 16
    assert (given["num_train_epochs"], given["learning_rate"]) == (50, 1e-4)
    assert (given["weight_decay"], given["max_grad_norm"], given["fp16"]) == (0.01, 1.0, True)
    assert (given["dataloader_num_workers"], found.dataloader.pin_memory) == (4, True)
    assert found.data.registry == "database/asr_training.db"
    assert found.output.dir == Path("checkpoints")


@pytest.mark.parametrize(("line", "key", "value"), LINES)
def test_every_other_line_of_the_guide_has_an_effect(tmp_path, line, key, value):
    wanted = pytest.approx(value) if isinstance(value, float) else value
    assert look(config(tmp_path, *line.splitlines()), key) == wanted


def test_wandb_is_told_by_variables(tmp_path):
    found = config(tmp_path, "wandb: {enabled: true, project: vi, entity: us}")
    assert environment(found)["WANDB_PROJECT"] == "vi" and environment(found)["WANDB_ENTITY"] == "us"
    assert training_arguments(found)["report_to"] == ["wandb"]
    assert "WANDB_PROJECT" not in environment(config(tmp_path))


def test_the_hardware_tiers_are_profiles(tmp_path):
    profiles = Path(__file__).parents[2] / "configs" / "profiles"
    sizes = {"weak": (4, 128, 4), "medium": (16, 256, 6), "strong": (32, 512, 12)}
    for name, (rows, width, layers) in sizes.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"_base_: {profiles / name}.yaml\n", encoding="utf8")
        found = load_config(path)
        assert (found.profile.name, found.training.batch_size) == (name, rows)
        assert (found.model.d_model, found.model.num_encoder_layers) == (width, layers)
    assert load_config(tmp_path / "weak.yaml").training.gradient_accumulation_steps == 4


def test_a_key_that_is_said_twice_with_two_values_is_refused_with_its_line(tmp_path):
    with pytest.raises(
        UserError, match=r"default.yaml:\d+: num_epochs: is 7 and training.num_train_epochs is 9"
    ):
        config(tmp_path, "training: {num_train_epochs: 9}", "num_epochs: 7")


def test_overrides_come_last(tmp_path):
    assert config(tmp_path, overrides=["d_model=128"]).model.d_model == 128


def test_an_unknown_type_of_augmentation_is_named(tmp_path):
    with pytest.raises(UserError, match=r"augmentation.types: unknown 'robot'"):
        config(tmp_path, "augmentation: {types: [robot]}")


def test_the_log_file_gets_what_is_printed(tmp_path, capsys):
    from training.api.runs import log_file
    from training.base.errors import LOGGER, shown

    found = config(tmp_path, f"log_file: {tmp_path}/logs/training.log")
    for line in ("one", "two"):
        with shown(), log_file(found):
            LOGGER.info(line)
    assert (tmp_path / "logs" / "training.log").read_text(encoding="utf8") == capsys.readouterr().out
    assert config(tmp_path).output.log_file == Path("logs/training.log")


@pytest.mark.parametrize("key", ["d_model", "model.d_model"])
def test_the_command_line_wins_over_a_file_without_blocks(tmp_path, key):
    found = config(
        tmp_path, overrides=[f"{key}=64", "training.batch_size=8", "num_epochs=20", "warmup_epochs=5"]
    )
    assert (found.model.d_model, found.training.batch_size, found.training.num_train_epochs) == (64, 8, 20)
    assert found.training.warmup_ratio == 0.25
