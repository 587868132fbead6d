"""Tokens that tell Whisper's decoder which population speaks, added to a tokenizer and its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import AddedToken

from training.models.common.plain_text import text_ids
from training.models.whisper.tokenizer import DOMAIN

Start = Literal["task", "name"]


def domain_token(name: str) -> str:
    """``<|domain:dyslexic|>``."""
    return f"{DOMAIN}{name}|>"


def add_domains(model: Any, processor: Any, domains: Sequence[str], start: Start) -> tuple[int, ...]:
    """Ids of the domains' tokens, in order; those that the tokenizer lacks are added to it and to the model.

    New rows of the (tied) embedding begin as the one of ``<|transcribe|>`` or as the mean of the pieces of the
    domain's name, plus a little noise that keeps them apart. The embedding never shrinks. The tokens can be prompted
    and not generated: they are suppressed, because ids behind Whisper's timestamps would count as timestamps.
    """
    tokenizer = processor.tokenizer
    known = tokenizer.get_vocab()
    new = [name for name in domains if domain_token(name) not in known]
    if new:
        _extend(tokenizer, [domain_token(name) for name in new])
    ids = tuple(tokenizer.convert_tokens_to_ids([domain_token(name) for name in domains]))
    if max(ids) >= model.config.vocab_size:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    if new and not model.get_input_embeddings().weight.is_meta:
        _initialise(model, tokenizer, new, start)
    suppressed = set(model.generation_config.suppress_tokens or ())
    model.generation_config.suppress_tokens = sorted(suppressed | set(ids))
    return ids


def _extend(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Special tokens in front of the others: what follows the *last* special one is a timestamp to Whisper's tokenizer."""
    others = list(tokenizer.extra_special_tokens)
    added = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [*added, *others]}, replace_extra_special_tokens=True
    )


@torch.no_grad()
def _initialise(model: Any, tokenizer: Any, names: Sequence[str], start: Start) -> None:
    weight = model.get_input_embeddings().weight
    draw = torch.Generator().manual_seed(0)
    for name in names:
        pieces = text_ids(tokenizer, f" {name}")
        like = pieces if start == "name" else [tokenizer.convert_tokens_to_ids("<|transcribe|>")]
        mean = weight[like].mean(dim=0)
        noise = torch.randn(mean.shape, generator=draw).to(mean) * 0.1 * mean.std()
        weight[tokenizer.convert_tokens_to_ids(domain_token(name))] = mean + noise
