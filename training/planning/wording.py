"""Settings of a run in words, for the dry run's table."""

from __future__ import annotations

import math
from typing import Any

from training.config.schema import Config
from training.data.sampler import DurationBatchSampler


def model(options: Any) -> str:
    """Type and origin, from whatever fields the architecture's options have."""
    values = options.model_dump(exclude_none=True)
    whole, parts = ("name",), ("encoder", "decoder", "audio_encoder", "llm")
    named = whole if values.get("name") else parts
    origin = " + ".join(values[key] for key in named if isinstance(values.get(key), str)) or "from scratch"
    words = [f"phase {values['phase']}" if "phase" in values else f"task {values.get('task', 'both')}"]
    if language := values.get("language"):
        words.append(f"language {language}")
    if context := values.get("encoder_context"):
        practised = context == "trimmed" and "full_context_share" in values
        words.append(f"encoder context {context}{_full_share(values) if practised else ''}")
    return f"{values['type']}, {origin}, {', '.join(words)}"


def _full_share(values: dict[str, Any]) -> str:
    share = values.get("full_context_share", 0.0)
    return f" ({share:.0%} of the batches in full)" if share else " (never in full: not for stock pipelines)"


def steps(config: Config, sampler: DurationBatchSampler | None, world: int) -> str:
    """Steps of an epoch and of the run, as the trainer counts them; epochs only where there is data."""
    training = config.training
    if sampler is None:
        return (
            f"{training.max_steps} steps"
            if training.max_steps > 0
            else f"{training.num_train_epochs:g} epochs"
        )
    per_rank = -(-len(sampler.batches()) // world)
    # The last optimiser step of an epoch takes the batches that are left.
    per_epoch = max(1, -(-per_rank // training.gradient_accumulation_steps))
    total = training.max_steps if training.max_steps > 0 else math.ceil(training.num_train_epochs * per_epoch)
    return f"{per_epoch:,} steps per epoch, {total:,} in all ({total / per_epoch:.1f} epochs)"


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
