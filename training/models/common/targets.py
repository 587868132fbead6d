"""From encoded examples to a batch: the parts that architectures share, and one collator for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Label of a position that is not supervised (the value that torch's cross entropy ignores)."""


def rectangle(rows: Sequence[Sequence[Any]], filling: Any) -> torch.Tensor:
    """``[rows, longest]``, filled up with ``filling`` behind each row: int64, or float32 for a float."""
    kind = torch.float32 if isinstance(filling, float) else torch.long
    return pad_sequence(
        [torch.tensor(row, dtype=kind) for row in rows], batch_first=True, padding_value=filling
    )


def collate_targets(
    features: Sequence[dict[str, Any]], tasks: Sequence[str], start_id: int, pad_id: int
) -> dict[str, Any]:
    """Decoder inputs and labels of a batch, one row for each utterance and task.

    Returns ``decoder_input_ids`` and ``labels``, both int64 ``[batch, task, length]``, and ``prompt_length``.
    The decoder input is the start token followed by the labels less their last id. Prompt positions and
    padding are `IGNORED` in the labels; padding is told by length, never by id, because EOS may be the
    padding token. A task that a row has no text for has its prompt as labels, without EOS: it can be generated,
    and its row of the labels is all `IGNORED`.

    Raises ``ValueError`` when prompts differ in length within the batch: ``generate`` takes a rectangle.
    """
    prompt_lengths = {length for row in features for length in row["prompt"].values()}
    if len(prompt_lengths) != 1:
        raise ValueError(f"prompts of different lengths in one batch: {sorted(prompt_lengths)}")
    prompt = prompt_lengths.pop()
    longest = max(1 + prompt, *(len(ids) for row in features for ids in row["labels"].values()))
    shape = (len(features), len(tasks), longest)
    inputs = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    inputs[:, :, 0] = start_id
    for i, row in enumerate(features):
        for j, task in enumerate(tasks):
            ids = row["labels"][task]
            supervised = ids[prompt:]
            inputs[i, j, 1 : 1 + prompt] = torch.tensor(ids[:prompt])
            inputs[i, j, 1 + prompt : prompt + len(supervised)] = torch.tensor(supervised[:-1])
            labels[i, j, prompt : prompt + len(supervised)] = torch.tensor(supervised)
    return {"decoder_input_ids": inputs, "labels": labels, "prompt_length": 1 + prompt}
