"""What passes from an utterance to the model: features of one utterance, and the batch."""

from __future__ import annotations

from typing import Any

Features = dict[str, Any]
"""One encoded utterance. Always: ``id`` (str), ``seconds`` (float, of audio), ``labels`` ({task: token ids that
follow the decoder's start token: the prompt, the text, EOS; the prompt alone where the utterance has no text for
the task}) and ``prompt`` ({task: how many leading ids of its labels are prompt}). ``before`` ({task: ids in front of the
start token}) only in training samples with a previous text. The rest is the architecture's own input."""

Batch = dict[str, Any]
"""Tensors for the model's ``forward``: the architecture's input, ``decoder_input_ids`` and ``labels``
``[batch, task, length]`` (see `training.models.common.targets`). Beside them what the trainer takes
out before the forward pass: ``ids`` (list of str), ``seconds`` (float: real audio in the batch), ``prompt_length`` (int:
leading columns of ``decoder_input_ids`` that ``generate`` is given; training batches whose prompts differ have none) and, where the supervised positions are not those of
``labels``, ``supervised`` (int64 ``[batch]``: how many there are in each row)."""
_NOT_INPUTS = ("ids", "seconds", "clip_seconds", "prompt_length", "prompt_lengths")


def model_inputs(batch: Batch) -> Batch:
    """The part of a batch that the model's forward takes."""
    return {key: value for key, value in batch.items() if key not in _NOT_INPUTS}


def supervised_positions(batch: Batch) -> int:
    """The number of positions that the loss of a batch is summed over; the loss is divided by it."""
    if "supervised" in batch:
        return int(batch["supervised"].sum())
    return int((batch["labels"] != -100).sum())
