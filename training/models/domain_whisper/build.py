"""Whisper that is told which population speaks, and adapted in its last blocks alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from transformers import WhisperProcessor

from training.base.errors import UserError
from training.models.abilities import DomainPrediction, Domains
from training.models.architecture import BuildContext, ParameterGroups
from training.models.batch import Batch
from training.models.common import SETTINGS
from training.models.domain_whisper import config
from training.models.domain_whisper.collator import (
    PLACE,
    DataCollatorSpeechSeq2SeqDomain,
    DomainEncode,
)
from training.models.domain_whisper.config import Options, Unfreeze
from training.models.domain_whisper.tokens import add_domains
from training.models.export_parts import ExportParts
from training.models.options import ModelOptions
from training.models.whisper.build import Whisper
from training.models.whisper.export import export_parts
from training.models.whisper.model import MultitaskWhisper

ATTENTION_AND_MLP = ("self_attn", "encoder_attn", "fc1", "fc2")


@dataclass(frozen=True, kw_only=True)
class DomainWhisper(Whisper):
    """Whisper that is told which population speaks, and adapted in its last blocks alone.

    token_ids: of the domains. unfreeze: which of the last blocks ``blocks`` and adapters mean.
    """

    Options: ClassVar[type[ModelOptions]] = config.Options

    token_ids: tuple[int, ...]
    unfreeze: Unfreeze

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Self:
        made = super().build(options, context)
        made.parameter_groups()  # refuses more blocks than there are
        return made

    @classmethod
    def parts(cls, options: Any, processor: WhisperProcessor, model: MultitaskWhisper) -> dict[str, Any]:
        ids = add_domains(model, processor, options.domains, options.domain_start)
        remember(model, options)
        found = super().parts(options, processor, model)
        collate = DataCollatorSpeechSeq2SeqDomain(
            **_fields(found["collate"]), supervise=options.domain_supervised, weights=options.domain_weights
        )
        encode = DomainEncode(
            **_fields(found["encode"]),
            domains=dict(zip(options.domains, ids, strict=True)),
            domain=options.domain,
            open_id=model.config.eos_token_id,  # type: ignore[arg-type]
        )
        return {
            **found,
            "token_ids": ids,
            "unfreeze": options.unfreeze,
            "encode": encode,
            "collate": collate,
            "train_collate": replace(collate, full_share=options.full_context_share, mixed=True),
            "domains": Domains(
                names=options.domains,
                default=options.domain,
                predictable=options.domain_supervised,
                predict=PredictDomain(options.domains, ids, model.config.eos_token_id),  # type: ignore[arg-type]
            ),
        }

    def export_parts(self) -> ExportParts:
        assert self.domains is not None
        return export_parts(self, dict(zip(self.domains.names, self.token_ids, strict=True)))

    def parameter_groups(self) -> ParameterGroups:
        config: Any = self.model.config
        blocks = (
            *last_blocks("encoder", self.unfreeze.encoder_blocks, config.encoder_layers, ("*",)),
            *last_blocks("decoder", self.unfreeze.decoder_blocks, config.decoder_layers, ATTENTION_AND_MLP),
        )
        within = tuple(pattern.removesuffix(".*") for pattern in blocks)
        whole = super().parameter_groups()
        return replace(
            whole,
            patterns={**whole.patterns, "blocks": blocks, "lora_within": (*within, *blocks)},
            rows={"model.decoder.embed_tokens.weight": self.token_ids},
        )


ARCHITECTURE = DomainWhisper


def remember(model: Any, options: Options) -> None:
    """Settings that a folder stores."""
    getattr(model.config, SETTINGS).update(
        type="domain_whisper",
        domains=list(options.domains),
        domain=options.domain,
        domain_supervised=options.domain_supervised,
        unfreeze=options.unfreeze.model_dump(),
    )


def _fields(part: Any) -> dict[str, Any]:
    return {one.name: getattr(part, one.name) for one in fields(part)}


def last_blocks(part: str, wanted: int, there: int, kinds: tuple[str, ...]) -> list[str]:
    """Parameter patterns of the last ``wanted`` of the ``there`` blocks of ``part``; `UserError` for more than there are."""
    if wanted > there:
        raise UserError(f"model.unfreeze.{part}_blocks: {wanted}, but the {part} has {there}")
    return [
        f"model.{part}.layers.{n}.{kind}{'' if kind == '*' else '.*'}"
        for n in range(there - wanted, there)
        for kind in kinds
    ]


@dataclass(frozen=True)
class PredictDomain:
    """Completes prompts that leave the domain open: the likeliest of the domains after language and task."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    open_id: int

    def __call__(self, model: Any, batch: Batch, states: torch.Tensor | None = None) -> DomainPrediction:
        inputs = batch["decoder_input_ids"]
        open_ = inputs[:, 0, PLACE + 1] == self.open_id
        if batch["prompt_length"] < PLACE + 3 or not open_.any():
            return DomainPrediction(batch, states, [None] * len(inputs))
        if states is None:
            states = model.encode(batch["input_features"])
        predicted = model.next_token(states, inputs[:, 0, : PLACE + 1], self.ids)
        completed = inputs.clone()
        completed[:, :, PLACE + 1] = torch.where(open_[:, None], predicted[:, None], inputs[:, :, PLACE + 1])
        names = [
            self.names[self.ids.index(i)] if o else None
            for i, o in zip(predicted.tolist(), open_.tolist(), strict=True)
        ]
        return DomainPrediction({**batch, "decoder_input_ids": completed}, states, names)
