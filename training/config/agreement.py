"""Checks across keys: values that are right one by one and contradict each other."""

from __future__ import annotations

from collections.abc import Sequence

from training.base.nearest import nearest
from training.config.blocks import KeyPath, Problem, Settings, Training
from training.data.example import TASKS
from training.data.metric import LOGGED, LOSS, ONSET_MAE, WER, base_score, of_task
from training.models.options import ModelOptions

RATIO_SCALE = 1_000_000
REPORTERS = (
    *("none", "all", "tensorboard", "wandb", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub"),
    *("dvclive", "flyte", "kubeflow", "mlflow", "neptune", "swanlab", "trackio"),
)
"""What `training.report_to` may name: the integrations of transformers."""


def contradictions(config: Settings) -> list[Problem]:
    """Every pair of settings that cannot both be meant, in the order of the blocks."""
    training = config.training
    return [
        *_precision(config),
        *_warmup(training),
        *_checkpoints(training),
        *_sources(config),
        *_augmentation(config),
        *_of_the_model(config),
        *_averages(training),
        *_trainable(training),
        *_lengths(config),
        *_best_metric(config),
        *_reporters(training),
    ]


def _key(name: str) -> KeyPath:
    return ("training", name)


def _precision(config: Settings) -> list[Problem]:
    training = config.training
    if training.fp16 and training.bf16:
        return [Problem(_key("fp16"), "fp16 and bf16 are both true; choose one", (_key("bf16"),))]
    if config.profile.device == "cpu" and precision(config) == "fp16":
        key = _key("fp16") if training.fp16 else ("profile", "precision")
        return [
            Problem(
                key, "fp16 needs a GPU and profile.device is cpu; use fp32 or bf16", (("profile", "device"),)
            )
        ]
    return []


def precision(config: Settings) -> str:
    """``fp32``, ``fp16``, ``bf16`` or ``auto``: what `training` says, else what the profile says.

    What ``auto`` means on this machine: `training.engine.arithmetic.choice`.
    """
    training = config.training
    if training.fp16:
        return "fp16"
    if training.bf16:
        return "bf16"
    chosen = config.profile.precision
    if chosen == "auto":  # one type that is switched off leaves nothing to choose
        return "fp32" if False in (training.fp16, training.bf16) else chosen
    return "fp32" if {"fp16": training.fp16, "bf16": training.bf16}.get(chosen) is False else chosen


def _warmup(training: Training) -> list[Problem]:
    if training.warmup_ratio is None or training.warmup_steps is None:
        return []
    return [
        Problem(
            _key("warmup_ratio"),
            "warmup_ratio and warmup_steps are both set; choose one, and set the other to null",
            (_key("warmup_steps"),),
        )
    ]


def evaluation_steps(training: Training) -> float:
    """Steps between evaluations (below 1: a share of the run)."""
    return training.eval_steps or training.logging_steps


def checkpoint_strategy(training: Training) -> str:
    """When checkpoints are written: as configured, else at each evaluation, else by steps."""
    return training.save_strategy or ("steps" if training.eval_strategy == "no" else training.eval_strategy)


def checkpoint_steps(training: Training) -> float:
    """Steps between checkpoints: as configured, else at each evaluation."""
    return training.save_steps or evaluation_steps(training)


def keeps_best(training: Training) -> bool:
    """Whether the run ends with its best checkpoint."""
    if training.load_best_model_at_end is None:
        return training.eval_strategy != "no" and checkpoint_strategy(training) != "no"
    return training.load_best_model_at_end


def _checkpoints(training: Training) -> list[Problem]:
    evaluates, saves = training.eval_strategy, checkpoint_strategy(training)
    if training.early_stopping_patience and not (keeps_best(training) and evaluates != "no"):
        key = _key("early_stopping_patience")
        message = "early stopping compares evaluations: it needs eval_strategy other than no and load_best_model_at_end"
        return [Problem(key, message, (_key("eval_strategy"), _key("load_best_model_at_end")))]
    if not keeps_best(training):
        return []
    if evaluates == "no":
        message = "the best checkpoint cannot be known while eval_strategy is no"
        return [Problem(_key("load_best_model_at_end"), message, (_key("eval_strategy"),))]
    if saves not in (evaluates, "best"):
        message = f"load_best_model_at_end needs save_strategy = eval_strategy ({evaluates}), not {saves}"
        return [
            Problem(_key("save_strategy"), message, (_key("eval_strategy"), _key("load_best_model_at_end")))
        ]
    return _multiples(training) if saves == evaluates == "steps" else []


def _sources(config: Settings) -> list[Problem]:
    """More than one source of utterances, and what the named ones contradict themselves."""
    sources, problems = config.data.sources, []
    if len(sources) > 1:
        message = f"data.{sources[1].key} is set too; choose one of them, and set the other to null"
        problems.append(Problem(("data", sources[0].key), message, (("data", sources[1].key),)))
    scored = config.training.eval_strategy != "no"
    return [*problems, *(Problem(*found) for source in sources for found in source.check(scored))]


def _augmentation(config: Settings) -> list[Problem]:
    settings = config.augmentation
    if not settings.enabled:
        return []
    key: KeyPath = ("augmentation",)
    problems = []
    if settings.reverb.prob and settings.reverb.folder is None:
        message = "reverberation needs impulse responses; name their folder in augmentation.reverb.folder"
        problems.append(Problem((*key, "reverb", "prob"), message, ((*key, "reverb", "folder"),)))
    bounds = (("speed", "low", "high"), ("volume", "low_db", "high_db"), ("noise", "snr_low", "snr_high"))
    for name, low, high in bounds:
        change = getattr(settings, name)
        if getattr(change, low) > getattr(change, high):
            message = f"is more than {high} ({getattr(change, high):g})"
            problems.append(Problem((*key, name, low), message, ((*key, name, high),)))
    return problems


def _of_the_model(config: Settings) -> list[Problem]:
    """What the architecture's own options contradict."""
    options = options_in(config)
    return [] if options is None else [Problem(*found) for found in options.check_config(config)]


def _averages(training: Training) -> list[Problem]:
    wanted, kept = training.average_checkpoints, training.save_total_limit
    if wanted is None:
        return []
    if training.trainable == "lora":
        message = "adapters are not averaged; leave it out or set trainable to all"
        return [Problem(_key("average_checkpoints"), message, (_key("trainable"),))]
    if not keeps_best(training):
        message = "the dev split decides whether the average is kept: it needs load_best_model_at_end"
        return [Problem(_key("average_checkpoints"), message, (_key("load_best_model_at_end"),))]
    if kept is not None and kept < wanted:
        message = f"of {wanted} checkpoints only {kept} are kept; raise save_total_limit"
        return [Problem(_key("average_checkpoints"), message, (_key("save_total_limit"),))]
    return []


def _multiples(training: Training) -> list[Problem]:
    saving, scoring = checkpoint_steps(training), evaluation_steps(training)
    mixed = (saving < 1) != (scoring < 1)
    if not mixed and round(saving * RATIO_SCALE) % round(scoring * RATIO_SCALE) == 0:
        return []
    message = (
        f"must be a multiple of eval_steps ({scoring:g}), so that each checkpoint has a score to be chosen by"
    )
    involved = tuple(
        _key(name) for name in ("eval_steps", "logging_steps", "eval_strategy", "load_best_model_at_end")
    )
    return [Problem(_key("save_steps"), f"{message} (got {saving:g})", involved)]


def _trainable(training: Training) -> list[Problem]:
    problems = []
    if training.lora is not None and training.trainable != "lora":
        message = f"adapters are described and trainable is {training.trainable}; set trainable: lora or remove them"
        problems.append(Problem(_key("lora"), message, (_key("trainable"),)))
    if training.freeze_encoder is False and training.freeze_encoder_epochs:
        message = "freeze_encoder is false; leave it out to freeze the encoder for the first epochs only"
        problems.append(Problem(_key("freeze_encoder_epochs"), message, (_key("freeze_encoder"),)))
    return problems


def _lengths(config: Settings) -> list[Problem]:
    problems = []
    longest: KeyPath = ("audio", "max_length_seconds")
    if config.data.min_seconds >= config.audio.max_length_seconds:
        message = f"no clip is longer than this and shorter than {'.'.join(map(str, longest))}"
        problems.append(Problem(("data", "min_seconds"), message, (longest,)))
    budgets: dict[KeyPath, float | None] = {
        _key("max_batch_seconds"): config.training.max_batch_seconds,
        ("evaluation", "batch_seconds"): config.evaluation.batch_seconds,
    }
    for key, seconds in budgets.items():
        if seconds is not None and seconds < config.audio.max_length_seconds:
            message = f"a clip of audio.max_length_seconds ({config.audio.max_length_seconds:g}) does not fit"
            problems.append(Problem(key, f"{message} (got {seconds:g})", (longest,)))
    return problems


def task_of(config: Settings) -> str:
    """``transcribe``, ``translate`` or ``both``."""
    options = options_in(config)
    tasks = options.tasks if options is not None else ()
    return tasks[0] if len(tasks) == 1 else "both"


def scored_by_word_times(config: Settings) -> bool:
    """Whether checkpoints are scored by the times of given words only."""
    options = options_in(config)
    return options is not None and options.scored_by_word_times


def options_in(config: Settings) -> ModelOptions | None:
    """The checked ``model:`` block; None where there is none, and where its ``type`` is unknown."""
    return config.model if isinstance(config.model, ModelOptions) else None


def _best_metric(config: Settings) -> list[Problem]:
    named = config.training.metric_for_best_model
    if named is None:
        return []
    task = task_of(config)
    # The score of word times is one of models that tell them and dev rows that have them: `check_metric` says which.
    onsets, all_scores = ONSET_MAE.name, [*_scores_of(TASKS), ONSET_MAE.name]
    name, known = named.removeprefix(LOGGED), [LOSS, *(all_scores if task == "both" else _scores_of([task]))]
    if scored_by_word_times(config):
        return [] if name in (LOSS, onsets) else [_of_phase_1(named)]
    # Which domains the dev rows have is known when they are read: `training.engine.selection.check_metric`.
    base, of_domain = base_score(name), "_" in name.rstrip("_")
    if name == onsets and WER.name in known:
        return []
    if name in known or (of_domain and base in known and base != LOSS):
        return []
    key = _key("metric_for_best_model")
    scores = ", ".join(f"eval_{score}" for score in known)
    if base in all_scores and (name == base or of_domain):
        message = f"{named} is no score of model.task {task}, which has {scores}"
        return [Problem(key, message, (("model", "task"),))]
    scores += f", and each but the loss of one domain (eval_{known[1]}_<domain>)"
    return [Problem(key, f"no score is called {named}; there are {scores}{_near(name, known, 'eval_')}")]


def _scores_of(tasks: Sequence[str]) -> list[str]:
    """The scores that each evaluation during training gives, beside the loss."""
    return [one.name for task in tasks for one in of_task(task)]


def _of_phase_1(metric: str) -> Problem:
    message = (
        f"{metric} is no score of training.phase 2, to which the text is given; there are eval_loss, {ONSET_MAE.logged} "
        "(training.phase1.metric_for_best_model is of phase 1 alone)"
    )
    return Problem(_key("metric_for_best_model"), message, (("model", "phase"),))


def _reporters(training: Training) -> list[Problem]:
    named = [training.report_to] if isinstance(training.report_to, str) else training.report_to
    return [
        Problem(_key("report_to"), f"nothing called {name!r} draws curves{_near(name, REPORTERS)}")
        for name in named
        if name not in REPORTERS
    ]


def _near(name: str, known: Sequence[str], prefix: str = "") -> str:
    near = nearest(name, known)
    if near:
        return f"; did you mean {prefix}{near}?"
    return "" if prefix else f"; choose of {', '.join(known)}"
