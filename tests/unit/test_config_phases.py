"""Blocks for the phases of a training: which counts, what is stronger, what cannot be in phase 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.base.errors import UserError
from training.config.load import load_config

CONFIG = """
model: {type: voxlm, audio_encoder: a, llm: b, name: outputs/first}
augmentation:
  phase1: {speed: {prob: 0.5}}
training:
  learning_rate: 1.0
  phase1: {learning_rate: 0.1, trainable: lora, lora: {r: 4}}
  phase2: {learning_rate: 0.2, weight_decay: 0.5}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "speech.yaml"
    found.write_text(CONFIG, encoding="utf8")
    return found


@pytest.mark.parametrize(
    ("overrides", "rate", "decay", "trainable", "speed", "name"),
    [
        ((), 0.1, 0.0, "lora", 0.5, "speech"),
        (("training.phase=2",), 0.2, 0.5, "all", 0.0, "speech_phase2"),
        (("training.phase=2", "training.learning_rate=0.3"), 0.3, 0.5, "all", 0.0, "speech_phase2"),
        (("model.phase=2", "output.experiment_name=mine"), 0.2, 0.5, "all", 0.0, "mine"),
    ],
)
def test_the_block_of_the_phase_counts(path, overrides, rate, decay, trainable, speed, name) -> None:
    config = load_config(path, overrides)
    training = config.training
    assert (training.learning_rate, training.weight_decay, training.trainable) == (rate, decay, trainable)
    assert config.augmentation.speed.prob == speed
    assert config.output.experiment_name == name
    assert "phase1" not in config.to_yaml() and "phase2:" not in config.to_yaml()


def test_a_derived_file_is_stronger_than_its_bases_block(path) -> None:
    derived = path.with_name("derived.yaml")
    derived.write_text(f"_base_: {path.name}\ntraining: {{learning_rate: 0.7}}\n", encoding="utf8")
    assert load_config(derived).training.learning_rate == 0.7


def test_a_mistake_in_a_block_is_named_with_its_line(path) -> None:
    path.write_text(CONFIG.replace("weight_decay: 0.5", "weight_dekay: 0.5"), encoding="utf8")
    load_config(path)  # of the other phase
    with pytest.raises(UserError, match=r"speech\.yaml:8: training\.weight_dekay"):
        load_config(path, ["training.phase=2"])


def test_phase_2_refuses_what_moves_the_words(path) -> None:
    with pytest.raises(UserError, match=r"augmentation\.speed\.prob: moves the words"):
        load_config(path, ["training.phase=2", "augmentation.speed.prob=0.5"])
    load_config(path, ["training.phase=2", "augmentation.speed.prob=0.5", "augmentation.enabled=false"])
    load_config(path, ["training.phase=2", "augmentation.volume.prob=0.5"])


def test_a_block_adds_to_the_mappings_around_it(path) -> None:
    path.write_text(
        "model: {type: voxlm, audio_encoder: a, llm: b}\n"
        "augmentation: {noise: {prob: 0.5, snr_low: 12.0}, phase1: {noise: {prob: 0.1}}}\n"
        "training: {trainable: lora, lora: {r: 4, alpha: 8.0}, phase1: {lora: {r: 2}}}\n",
        encoding="utf8",
    )
    config = load_config(path)
    assert (config.training.lora.r, config.training.lora.alpha) == (2, 8.0)
    assert (config.augmentation.noise.prob, config.augmentation.noise.snr_low) == (0.1, 12.0)


@pytest.mark.parametrize("metric", ["wer", "eval_cer", "cer_child"])
def test_phase_2_is_judged_by_times_and_not_by_texts_that_it_is_given(path, metric) -> None:
    with pytest.raises(UserError, match=rf"metric_for_best_model: {metric} is no score of training\.phase 2"):
        load_config(path, ["training.phase=2", f"training.metric_for_best_model={metric}"])
    for own in ("loss", "eval_onset_mae"):
        load_config(path, ["training.phase=2", f"training.metric_for_best_model={own}"])
    load_config(path, [f"training.metric_for_best_model={metric}"])


def test_heads_share_the_width_of_the_aligner(path) -> None:
    with pytest.raises(UserError, match=r"model\.aligner.*width 250 must be a multiple of heads \(4\)"):
        load_config(path, ["model.aligner.width=250"])
