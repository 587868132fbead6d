"""Whisper that is told which population speaks, and adapted in its last blocks alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from training.errors import UserError
from training.models.architecture import Batch, BuildContext, Bundle, Heard
from training.models.common import SETTINGS
from training.models.domain_whisper.collator import (
    PLACE,
    DataCollatorSpeechSeq2SeqDomain,
    DomainEncode,
)
from training.models.domain_whisper.config import Options
from training.models.domain_whisper.tokens import add_domains
from training.models.whisper import build as whisper

ATTENTION_AND_MLP = ("self_attn", "encoder_attn", "fc1", "fc2")


def build(options: Options, context: BuildContext) -> Bundle:
    """A Whisper run's model, processor and data functions, with the domains' tokens."""
    bundle = whisper.build(options, context)
    model: Any = bundle.model
    ids = add_domains(model, bundle.processor, options.domains, options.domain_start)
    domains = dict(zip(options.domains, ids, strict=True))
    remember(model, options)
    collate = DataCollatorSpeechSeq2SeqDomain(
        **_fields(bundle.collate), supervise=options.domain_supervised, weights=options.domain_weights
    )
    return replace(
        bundle,
        encode=DomainEncode(
            **_fields(bundle.encode),
            domains=domains,
            domain=options.domain,
            open_id=model.config.eos_token_id,
        ),
        collate=collate,
        train_collate=replace(collate, full_share=options.full_context_share),
        domains=options.domains,
        groups={**bundle.groups, **_groups(options, model)},
        rows={"model.decoder.embed_tokens.weight": ids},
        listen=Listen(options.domains, ids, model.config.eos_token_id),
    )


def remember(model: Any, options: Options) -> None:
    """What a folder must say of itself."""
    getattr(model.config, SETTINGS).update(
        type="domain_whisper",
        domains=list(options.domains),
        domain=options.domain,
        domain_supervised=options.domain_supervised,
        unfreeze=options.unfreeze.model_dump(),
    )


def _fields(part: Any) -> dict[str, Any]:
    return {one.name: getattr(part, one.name) for one in fields(part)}


def _groups(options: Options, model: Any) -> dict[str, tuple[str, ...]]:
    blocks = (
        *_last("encoder", options.unfreeze.encoder_blocks, model.config.encoder_layers, ("*",)),
        *_last("decoder", options.unfreeze.decoder_blocks, model.config.decoder_layers, ATTENTION_AND_MLP),
    )
    within = tuple(pattern.removesuffix(".*") for pattern in blocks)
    return {"blocks": blocks, "lora_within": (*within, *blocks)}


def _last(part: str, wanted: int, there: int, kinds: tuple[str, ...]) -> list[str]:
    if wanted > there:
        raise UserError(f"model.unfreeze.{part}_blocks: {wanted}, but the {part} has {there}")
    return [
        f"model.{part}.layers.{n}.{kind}{'' if kind == '*' else '.*'}"
        for n in range(there - wanted, there)
        for kind in kinds
    ]


@dataclass(frozen=True)
class Listen:
    """Completes prompts that leave the domain open: the likeliest of the domains after language and task."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    open_id: int

    def __call__(self, model: Any, batch: Batch, states: torch.Tensor | None = None) -> Heard:
        inputs = batch["decoder_input_ids"]
        open_ = inputs[:, 0, PLACE + 1] == self.open_id
        if batch["prompt_length"] < PLACE + 3 or not open_.any():
            return Heard(batch, states, [None] * len(inputs))
        if states is None:
            states = model.encode(batch["input_features"])
        heard = model.next_token(states, inputs[:, 0, : PLACE + 1], self.ids)
        completed = inputs.clone()
        completed[:, :, PLACE + 1] = torch.where(open_[:, None], heard[:, None], inputs[:, :, PLACE + 1])
        names = [
            self.names[self.ids.index(i)] if o else None
            for i, o in zip(heard.tolist(), open_.tolist(), strict=True)
        ]
        return Heard({**batch, "decoder_input_ids": completed}, states, names)
