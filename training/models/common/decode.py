"""Shared by architectures with a tokenizer of transformers: ids to text, made-up targets of a CTC head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from training.data.control_marks import TIME
from training.models.architecture import TOKENS_PER_SECOND, new_tokens
from training.models.batch import Batch, Features

if TYPE_CHECKING:
    import torch


def decode_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Token ids of one row to text, control tokens left out: special ones, and timestamps that are not called so.

    Text that is only written like one (``<|0.00|>``) stays.
    """
    times = _timestamp_ids(tokenizer)
    kept = [i for i in ids if i not in times]
    # Not the tokenizer's own decode: Whisper's takes out what is written like a timestamp as well.
    return str(PreTrainedTokenizerBase.decode(tokenizer, kept, skip_special_tokens=True)).strip()


@lru_cache(maxsize=8)
def _timestamp_ids(tokenizer: Any) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if TIME.fullmatch(token.content))


def prompted(
    batch: Batch, positions: int, generation: Mapping[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The prompts ``[batch, task, length]`` of a batch, and the arguments of ``generate`` bounded to fit behind them.

    Args:
        batch: with ``decoder_input_ids`` and ``prompt_length``.
        positions: of the decoder.
        generation: arguments of ``generate``; ``max_new_tokens`` absent or None: as many as fit.
    """
    prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
    bound = new_tokens(generation.get("max_new_tokens"), positions, prompts.shape[-1])
    return prompts, {**generation, "max_new_tokens": bound}


def with_ctc_labels(features: Features) -> Features:
    """Targets of a CTC head as many as speech of that length needs, where the features have such targets.

    Encoders give twice as many frames as there are labels: they can be aligned, whatever repeats.
    """
    if "ctc_labels" not in features:
        return features
    label = (features["ctc_labels"] or [0])[:1]
    return {**features, "ctc_labels": label * max(1, int(features["seconds"] * TOKENS_PER_SECOND))}
