"""The labels of an example in words, for the dry run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from training.config.schema import Config
from training.engine import long_form
from training.models.architecture import Architecture
from training.models.batch import Features


def rows(
    config: Config, architecture: Architecture, one: Features, train: Any | None
) -> Iterator[tuple[str, str]]:
    """Names and texts: each task's labels, and what of them is not supervised.

    Args:
        config: of the run.
        architecture: with its processor.
        one: an encoded utterance.
        train: the encoded training split, to show what is practised for long recordings too; None: not shown.
    """
    if architecture.frames is not None:
        for task, ids in one["labels"].items():
            yield task, f"{architecture.text(ids)!r}, {len(ids)} labels"
        return
    inputs = architecture.collate([one]).get("decoder_input_ids")
    start = [] if inputs is None else inputs[0, 0, :1].tolist()
    tokenizer: Any = architecture.processor.tokenizer
    for task, ids in one["labels"].items():
        prompt = ids[: one["prompt"][task]]
        yield task, tokenizer.decode([*start, *ids], skip_special_tokens=False)
        yield "", f"not supervised: {tokenizer.decode([*start, *prompt], skip_special_tokens=False)}"
    if train is not None:
        yield from practised(config, architecture, train, start)


def practised(
    config: Config, architecture: Architecture, train: Any, start: list[int]
) -> Iterator[tuple[str, str]]:
    """The labels of one sample with all that the configuration lets training practise for long recordings."""
    from transformers import PreTrainedTokenizerBase

    drawn = long_form.draws(config, architecture, train.manifest)
    if drawn is None or not (drawn.timestamps or drawn.previous_text):
        return
    told = f"times in {drawn.timestamps:.0%} of the samples, text before in {drawn.previous_text:.0%}"
    yield "long form", told
    train.long_form = replace(
        drawn, timestamps=float(drawn.timestamps > 0), previous_text=float(drawn.previous_text > 0)
    )
    one = train.drawn(min(1, len(train) - 1), 0)
    train.long_form = drawn
    tokenizer: Any = architecture.processor.tokenizer
    for task, ids in one["labels"].items():
        given = [*one.get("before", {}).get(task, ()), *start, *ids]
        # Whisper's own decode leaves out timestamps.
        yield task, str(PreTrainedTokenizerBase.decode(tokenizer, given, skip_special_tokens=False))
