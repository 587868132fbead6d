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
    features: Sequence[dict[str, Any]],
    tasks: Sequence[str],
    start_id: int,
    pad_id: int,
    *,
    mixed: bool = False,
) -> dict[str, Any]:
    """Decoder inputs and labels of a batch, one row for each utterance and task.

    Returns ``decoder_input_ids`` and ``labels``, both int64 ``[batch, task, length]``, and ``prompt_length``.
    The decoder input is the start token followed by the labels less their last id; in front of the start token stand
    the ids of ``before`` (by task), where features have them. What stands before the text and padding are `IGNORED` in
    the labels; padding is told by length, never by id, because EOS may be the padding token. A task that a row has no
    text for has its prompt as labels, without EOS: it can be generated, and its row of the labels is all `IGNORED`.

    Raises ``ValueError`` when prompts differ in length within the batch: ``generate`` takes a rectangle. With ``mixed``
    they may: such a batch can be trained on alone, and has no ``prompt_length``.
    """
    prompt_lengths = {length for row in features for length in row["prompt"].values()}
    before = any(ids for row in features for ids in row.get("before", {}).values())
    if not mixed and (before or len(prompt_lengths) != 1):
        raise ValueError(f"prompts of different lengths in one batch: {sorted(prompt_lengths)}")
    rows = [[_row(row, task, start_id) for task in tasks] for row in features]
    longest = max(len(inputs) for row in rows for inputs, _ in row)
    shape = (len(features), len(tasks), longest)
    inputs = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for i, row in enumerate(rows):
        for j, (given, supervised) in enumerate(row):
            inputs[i, j, : len(given)] = torch.tensor(given)
            labels[i, j, len(given) - len(supervised) : len(given)] = torch.tensor(
                supervised, dtype=torch.long
            )
    batch: dict[str, Any] = {"decoder_input_ids": inputs, "labels": labels}
    if not before and len(prompt_lengths) == 1:
        batch["prompt_length"] = 1 + prompt_lengths.pop()
    return batch


def _row(row: dict[str, Any], task: str, start_id: int) -> tuple[list[int], list[int]]:
    """The decoder's input of a row, and the labels of its last positions."""
    ids, prompt = row["labels"][task], row["prompt"][task]
    supervised = ids[prompt:]
    return [*row.get("before", {}).get(task, ()), start_id, *ids[:prompt], *supervised[:-1]], supervised
