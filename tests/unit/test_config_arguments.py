"""Our ``training`` block as transformers sees it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import SchedulerType

from training.base.errors import UserError
from training.cli.evaluate import parser
from training.config import verbatim
from training.config.arguments import training_arguments
from training.config.blocks import Schedule, Training
from training.config.load import config_from
from training.config.merge import ALIASES
from training.config.schema import Config
from training.engine import run

FIELDS = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}


def config(model: dict[str, Any] | None = None, **training: Any) -> Config:
    blocks: dict[str, Any] = {"training": training}
    return config_from({**blocks, "model": model} if model else blocks)


def made(tmp_path: Path, **training: Any) -> Seq2SeqTrainingArguments:
    """The dataclass itself, on the CPU."""
    arguments = training_arguments(config(**training), cpu_trial=True)
    return Seq2SeqTrainingArguments(**{**arguments, "output_dir": str(tmp_path)})


def test_defaults_are_taken_by_the_installed_transformers(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    arguments = made(tmp_path)
    assert arguments.remove_unused_columns is False
    assert arguments.predict_with_generate is True
    assert [str(one.message) for one in recwarn if issubclass(one.category, FutureWarning)] == []


@pytest.mark.parametrize(
    ("given", "steps"), [({"warmup_ratio": 0.1}, 30), ({"warmup_steps": 12}, 12), ({}, 0)]
)
def test_warm_up_of_300_steps(tmp_path: Path, given: dict[str, float], steps: int) -> None:
    assert made(tmp_path, **given).get_warmup_steps(300) == steps


# Trap 22.
def test_names_that_are_gone_are_refused_with_the_reason() -> None:
    gone = ("tokenizer", "save_safetensors", "logging_dir", "group_by_length", "overwrite_output_dir")
    for name in gone:
        assert name not in FIELDS
        with pytest.raises(
            UserError, match=rf"training\.{name}: is gone from transformers: \w.* \(got True\)"
        ):
            config(**{name: True})
    assert "warmup_ratio" not in FIELDS
    assert "warmup_ratio" not in training_arguments(config(warmup_ratio=0.1))
    assert set(training_arguments(config(warmup_ratio=0.1))) <= FIELDS


def test_every_argument_is_a_field_of_the_installed_transformers() -> None:
    assert set(training_arguments(config())) <= FIELDS


def test_each_field_of_transformers_has_one_home() -> None:
    """Short name, own name, second name or refusal; and what is refused as decided elsewhere exists or is gone."""
    homes = [
        set(verbatim.fields()),
        FIELDS & set(Training.model_fields),
        FIELDS & set(ALIASES),
        FIELDS & set(verbatim.REFUSED),
    ]
    assert set().union(*homes) | {"gradient_checkpointing"} == FIELDS
    assert sum(map(len, homes)) == len(FIELDS)
    assert set(verbatim.HANDLED) == set(ALIASES)


def test_schedules_are_those_of_the_installed_transformers_and_one_cycle() -> None:
    assert set(get_args(Schedule)) == {*(member.value for member in SchedulerType), "onecycle"}


def test_verbatim_fields_arrive_with_their_types(tmp_path: Path) -> None:
    arguments = made(
        tmp_path,
        adam_beta2=0.98,
        optim="adafactor",
        neftune_noise_alpha=5,
        lr_scheduler_kwargs={"num_cycles": 2},
    )
    assert (arguments.adam_beta2, arguments.optim, arguments.neftune_noise_alpha) == (0.98, "adafactor", 5.0)
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}


# Trap 20.
def test_checkpoints_are_chosen_by_the_score_not_the_loss() -> None:
    def best(**blocks: Any) -> tuple[str, bool]:
        arguments = training_arguments(config(**blocks))
        return arguments["metric_for_best_model"], arguments["greater_is_better"]

    whisper = {"type": "whisper", "name": "x"}
    assert best() == ("eval_wer", False)
    assert best(model={**whisper, "task": "both"}) == ("eval_wer", False)
    assert best(model={**whisper, "task": "translate"}) == ("eval_bleu", True)
    assert best(metric_for_best_model="chrf") == ("eval_chrf", True)
    assert best(metric_for_best_model="eval_loss") == ("eval_loss", False)
    assert best(metric_for_best_model="chrf", greater_is_better=False) == ("eval_chrf", False)
    assert best(metric_for_best_model="onset_mae") == ("eval_onset_mae", False)
    assert best(metric_for_best_model="cer_dyslexic") == ("eval_cer_dyslexic", False)
    assert best(metric_for_best_model="eval_wer_bleu") == ("eval_wer_bleu", False)
    assert best(metric_for_best_model="bleu_cer") == ("eval_bleu_cer", True)
    assert training_arguments(config())["load_best_model_at_end"] is True


# Trap 20.
def test_training_opens_the_selection_set_and_never_the_test_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    class Opened(Exception):
        pass

    def stop(*arguments: Any) -> None:
        raise Opened

    monkeypatch.setattr(run, "open_split", lambda config, split: opened.append(split) or [])
    monkeypatch.setattr(run, "build_architecture", stop)
    with pytest.raises(Opened):
        run.build(config())
    assert opened == ["train", "dev"]
    assert parser().parse_args(["--model_dir", "x"]).split == "test"


@pytest.mark.parametrize(
    ("profile", "training", "expected"),
    [
        ("fp32", {}, (False, False)),
        ("fp16", {}, (True, False)),
        ("bf16", {}, (False, True)),
        ("bf16", {"fp16": True}, (True, False)),
        ("fp16", {"fp16": False}, (False, False)),
        ("fp16", {"bf16": False}, (True, False)),
        ("fp32", {"bf16": True}, (False, True)),
    ],
)
def test_precision_of_the_run_over_that_of_the_profile(
    profile: str, training: dict[str, bool], expected: tuple[bool, bool]
) -> None:
    one = config_from({"profile": {"precision": profile}, "training": training})
    arguments = training_arguments(one)
    assert (arguments["fp16"], arguments["bf16"]) == expected
    trial = training_arguments(one, cpu_trial=True)
    assert (trial["fp16"], trial["bf16"], trial["use_cpu"]) == (False, False, True)


def test_checkpoints_fall_on_evaluations_by_default() -> None:
    assert training_arguments(config(eval_steps=20))["save_steps"] == 20
    assert training_arguments(config(eval_strategy="epoch"))["save_strategy"] == "epoch"
    silent = training_arguments(config(eval_strategy="no", save_steps=7))
    assert (silent["save_strategy"], silent["save_steps"], silent["load_best_model_at_end"]) == (
        "steps",
        7,
        False,
    )


def test_no_workers_no_worker_settings() -> None:
    arguments = training_arguments(
        config_from({"dataloader": {"num_workers": 0, "multiprocessing_context": "spawn"}})
    )
    assert arguments["dataloader_prefetch_factor"] is None
    assert arguments["dataloader_multiprocessing_context"] is None
    assert arguments["dataloader_persistent_workers"] is False


def test_reporting_can_be_switched_off() -> None:
    assert training_arguments(config(report_to="none"))["report_to"] == []


# Trap 27.
def test_checkpointing_is_not_re_entrant(tmp_path: Path) -> None:
    assert made(tmp_path, gradient_checkpointing=True).activation_checkpointing_kwargs == {
        "use_reentrant": False
    }


def test_a_light_configuration_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from training.config.load import config_from; from training.config.arguments import training_arguments;"
        "training_arguments(config_from({'training': {'batch_size': 2}}));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
