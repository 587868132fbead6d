"""Our ``training`` block as the keyword arguments of `Seq2SeqTrainingArguments` (transformers 5.23)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config.agreement import (
    checkpoint_steps,
    checkpoint_strategy,
    evaluation_steps,
    keeps_best,
    precision,
    scored_by_word_times,
    task_of,
)
from training.config.blocks import Training
from training.config.schema import Config
from training.data.batch_policy import BatchPolicy
from training.data.metric import LOGGED, ONSET_MAE, higher_is_better, main_metric
from training.models.architecture import DecodeOptions

DEFAULT_BATCH = 8
SMOKE = ("training.max_steps=100", "output.suffix=_smoke")
"""Overrides of ``--smoke``: a run that shows that everything works together, and learns next to nothing; in a folder of its own."""
SAME_NAME = (
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "num_train_epochs",
    "max_steps",
    "eval_strategy",
    "save_total_limit",
    "logging_steps",
    "seed",
)
"""Fields that are called the same and mean the same in both."""


def training_arguments(config: Config, *, cpu_trial: bool = False) -> dict[str, Any]:
    """Keyword arguments for `Seq2SeqTrainingArguments`.

    ``cpu_trial=True`` gives those of a trial on this machine's CPU in fp32, whatever the profile says (the dry
    run). Nothing is imported from torch or transformers, and nothing is looked up on the machine: whether a
    GPU is there is for the caller to check against ``config.profile.device``.
    """
    training = config.training
    arguments = {name: getattr(training, name) for name in SAME_NAME}
    if training.lr_scheduler_type == "onecycle":  # transformers has none: the trainer makes torch's
        arguments["lr_scheduler_type"] = "constant"
    arguments |= _batches(training) | _schedule(training) | _choice(config) | _loader(config)
    arguments |= _device(config, cpu_trial)
    arguments |= {
        "output_dir": str(config.output.dir),
        "run_name": config.output.experiment_name,
        "report_to": _reports(training),
        "activation_checkpointing": training.gradient_checkpointing,
        # Re-entrant checkpoints lose the gradients of a frozen input.
        "activation_checkpointing_kwargs": {"use_reentrant": False}
        if training.gradient_checkpointing
        else None,
        # A batch without transcripts, an encoder that unfreezes later: not every rank has every gradient.
        "ddp_find_unused_parameters": True,
        "remove_unused_columns": False,
        "predict_with_generate": True,
        "label_names": ["labels"],
    }
    return arguments | verbatim_settings(training)


def verbatim_settings(training: Training) -> dict[str, Any]:
    """The fields of `Seq2SeqTrainingArguments` that the configuration sets by their own names."""
    return {name: getattr(training, name) for name in training.model_fields_set - set(Training.model_fields)}


def logging_folder(config: Config) -> Path:
    """Where TensorBoard's files go."""
    return config.output.dir / "logs"


def environment(config: Config) -> dict[str, str]:
    """Variables to set before the trainer starts: transformers 5 reads TensorBoard's folder from one."""
    wandb = {"WANDB_PROJECT": config.output.wandb_project, "WANDB_ENTITY": config.output.wandb_entity}
    return {
        "TENSORBOARD_LOGGING_DIR": str(logging_folder(config)),
        **{name: value for name, value in wandb.items() if value},
    }


def batch_policy(config: Config) -> BatchPolicy:
    """How large the batches of a run are."""
    training = config.training
    return BatchPolicy(
        max_seconds=training.max_batch_seconds,
        batch_size=training.batch_size or (None if training.max_batch_seconds else DEFAULT_BATCH),
        full_share=config.model.full_share if config.model is not None else 0.0,
        eval_seconds=config.evaluation.batch_seconds,
        eval_batch_size=training.eval_batch_size,
    )


def decode_options(config: Config) -> DecodeOptions:
    """How a run's model is asked while it is trained."""
    settings = config.evaluation
    return DecodeOptions(beam_width=settings.num_beams, max_new_tokens=settings.max_new_tokens)


def best_metric(config: Config) -> str:
    """The metric that checkpoints are chosen by, with the trainer's ``eval_`` prefix.

    The loss can fall while the WER rises, so the default is the score that the run is for.
    """
    named = config.training.metric_for_best_model
    if named is None:
        chosen = ONSET_MAE if scored_by_word_times(config) else main_metric(task_of(config))
        return chosen.logged
    return named if named.startswith(LOGGED) else f"{LOGGED}{named}"


def _batches(training: Training) -> dict[str, Any]:
    size = training.batch_size or DEFAULT_BATCH
    return {
        "per_device_train_batch_size": size,
        "per_device_eval_batch_size": training.eval_batch_size or size,
    }


def _schedule(training: Training) -> dict[str, Any]:
    """Warm-up, evaluation and checkpoints. ``warmup_steps`` below 1 is a share of the steps."""
    warmup = training.warmup_steps if training.warmup_steps is not None else training.warmup_ratio
    return {
        "warmup_steps": warmup or 0,
        "eval_steps": evaluation_steps(training),
        "save_strategy": checkpoint_strategy(training),
        "save_steps": checkpoint_steps(training),
    }


def _choice(config: Config) -> dict[str, Any]:
    metric, greater = best_metric(config), config.training.greater_is_better
    if greater is None:
        greater = higher_is_better(metric)
    return {
        "load_best_model_at_end": keeps_best(config.training),
        "metric_for_best_model": metric,
        "greater_is_better": greater,
    }


def _loader(config: Config) -> dict[str, Any]:
    loader = config.dataloader
    workers = loader.num_workers > 0
    return {
        "dataloader_num_workers": loader.num_workers,
        "dataloader_pin_memory": loader.pin_memory and config.profile.device != "cpu",
        "dataloader_prefetch_factor": loader.prefetch_factor if workers else None,
        "dataloader_multiprocessing_context": loader.multiprocessing_context if workers else None,
        "dataloader_persistent_workers": workers,
    }


def _device(config: Config, cpu_trial: bool) -> dict[str, Any]:
    chosen = "fp32" if cpu_trial else precision(config)
    return {
        "use_cpu": cpu_trial or config.profile.device == "cpu",
        "fp16": chosen == "fp16",
        "bf16": chosen == "bf16",
    }


def _reports(training: Training) -> list[str]:
    reports = [training.report_to] if isinstance(training.report_to, str) else list(training.report_to)
    return [name for name in reports if name != "none"]
