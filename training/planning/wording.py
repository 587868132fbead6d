"""Settings of a run in words, for the dry run's table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.config.schema import Config
from training.data.amounts import cells
from training.data.sampler import DurationBatchSampler
from training.models.architecture import AUTO
from training.planning import duration

WARMUP_SHARE = 0.1
"""Share of the steps above which a warm-up is called long."""


def model(options: Any) -> str:
    """Type and origin, from whatever fields the architecture's options have."""
    values = options.model_dump(exclude_none=True)
    whole, parts = ("name",), ("encoder", "decoder", "audio_encoder", "llm")
    named = whole if values.get("name") else parts
    origin = " + ".join(values[key] for key in named if isinstance(values.get(key), str)) or "from scratch"
    words = [f"phase {values['phase']}" if "phase" in values else f"task {values.get('task', 'both')}"]
    if "language" in values:
        given = "language" in options.model_fields_set
        words.append(f"language {values['language']}" if given else "language as the data show")
    if context := values.get("encoder_context"):
        practised = context == "trimmed" and "full_context_share" in values
        words.append(f"encoder context {context}{_full_share(values) if practised else ''}")
    return f"{values['type']}, {origin}, {', '.join(words)}"


def counted(number: int, one: str, several: str) -> str:
    """``1 batch``, ``2 batches``."""
    return f"{number:,} {one if number == 1 else several}"


def _full_share(values: dict[str, Any]) -> str:
    share = values.get("full_context_share", 0.0)
    return f" ({share:.0%} of the clips in full)" if share else " (never in full: not for stock pipelines)"


def languages(rows: Any, options: Any) -> Iterator[str]:
    """What pretrained weights take the language of the rows for, where rows name none; nothing where all do."""
    unnamed = sum(not name for name in cells(rows, "language"))
    language = getattr(options, "language", None)
    if unnamed and options.weights and language not in (None, AUTO):
        yield f"{unnamed:,} of {len(rows):,} rows name no language: taken for {language!r} (model.language)"


def steps(config: Config, sampler: DurationBatchSampler | None, world: int) -> str:
    """Steps of an epoch and of the run, as the trainer counts them; epochs only where there is data."""
    training = config.training
    if sampler is None:
        return (
            f"{training.max_steps} steps"
            if training.max_steps > 0
            else f"{training.num_train_epochs:g} epochs"
        )
    found = duration.steps(config, -(-len(sampler.batches()) // world))
    return f"{found.each:,} steps per epoch, {found.total:,} in all ({found.epochs:.1f} epochs)"


def schedule_warnings(config: Config, batches: int, world: int) -> Iterator[str]:
    """A run that ends before all utterances were seen once, and one that warms up for more than a tenth of its steps."""
    found, training = duration.steps(config, -(-batches // world)), config.training
    if found.total < found.each:
        asked = f"max_steps: {training.max_steps}" if training.max_steps > 0 else "num_train_epochs"
        yield (
            f"training.{asked} ends the run after {found.epochs:.0%} of an epoch, before every utterance was seen; remove it, "
            "or raise it, unless this is a trial"
        )
    warm = training.warmup_steps or 0
    if warm >= 1 and warm > WARMUP_SHARE * found.total:
        yield (
            f"training.warmup_steps: {warm:g} are {warm / found.total:.0%} of the run's {found.total:,} steps; "
            f"training.warmup_ratio={WARMUP_SHARE:g} (and warmup_steps=null) warms up for a tenth"
        )


def trainable(training: Any) -> str:
    words = [training.trainable]
    words += [f"without {pattern}" for pattern in training.freeze]
    if training.freeze_feature_encoder:
        words.append("convolutions frozen")
    if training.freeze_encoder_epochs:
        words.append(f"encoder frozen for {training.freeze_encoder_epochs:g} epochs")
    elif training.freeze_encoder:
        words.append("encoder frozen")
    return ", ".join(words)
