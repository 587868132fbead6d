"""Which settings decide a run's weights: only a change of these trains again."""

from __future__ import annotations

from typing import Any

BLOCKS = ("model", "audio", "augmentation", "output")
DATA = (
    *("train", "dev", "manifest", "dev_share", "registry", "version"),
    *("audio_root", "columns", "dataset", "shards", "librispeech", "domains", "min_seconds"),
)
EVALUATION = ("max_utterances",)
"""The one setting of `evaluation` that is of use in training alone: checkpoints are chosen on these rows. How they are
decoded (`num_beams`, `max_new_tokens`) has a say in that choice too, but a change of it is one of the scores: it trains
nothing again."""
NOT_OF_TRAINING = frozenset(
    (
        "report_to",
        "save_total_limit",
        "eval_batch_size",
        "logging_first_step",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "disable_tqdm",
        "skip_memory_metrics",
        "dataloader_persistent_workers",
        "push_to_hub",
        "hub_model_id",
        "hub_strategy",
        "hub_private_repo",
        "hub_always_push",
        "hub_revision",
    )
)
"""Fields of `training` about logs, curves, copies and speed."""


def of_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that the trained model, or its folder, depends on.

    Left out: workers, the machine but for its arithmetic, the test split (a file of the evaluation), and how a
    finished model is decoded and scored. `training.logging_steps` stays: it is `eval_steps` where that is null.
    """
    training = config.get("training") or {}
    return {
        **{name: config.get(name) for name in BLOCKS},
        "data": _chosen(config, "data", DATA),
        "training": {name: value for name, value in training.items() if name not in NOT_OF_TRAINING},
        "evaluation": _chosen(config, "evaluation", EVALUATION),
        "profile": _chosen(config, "profile", ("precision",)),
    }


def of_scores(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a finished model is decoded and scored with."""
    evaluation = config.get("evaluation") or {}
    return {name: value for name, value in evaluation.items() if name not in EVALUATION}


def _chosen(config: dict[str, Any], block: str, names: tuple[str, ...]) -> dict[str, Any]:
    values = config.get(block) or {}
    return {name: values.get(name) for name in names}
