"""The ``model:`` block of ``model.type: domain_whisper``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from training.data.options import Block
from training.models.architecture import ASKED
from training.models.whisper import config as whisper


class Unfreeze(Block):
    """What learns with ``training.trainable: blocks`` (and has adapters with ``lora``), beside the domains' tokens."""

    encoder_blocks: Annotated[int, Field(ge=0)] = 4
    """So many last blocks of the encoder."""
    decoder_blocks: Annotated[int, Field(ge=0)] = 4
    """So many last blocks of the decoder: their attention and feed-forward layers, not their norms."""


class Options(whisper.Options):
    """The ``model:`` block of ``model.type: domain_whisper``: that of ``whisper``, and the domains."""

    stock_types: ClassVar[tuple[str, ...]] = ()

    type: Literal["domain_whisper"] = "domain_whisper"  # type: ignore[assignment]
    """The architecture."""
    language: str = "ko"
    """Language token of rows that name no language (ISO 639)."""
    task: Literal["transcribe", "translate", "both"] = "transcribe"
    """What each clip is trained on."""
    domains: tuple[str, ...] = ("normal", "dyslexic")
    """Populations, each with a token ``<|domain:…|>``; an utterance's is in its column ``domain``."""
    domain: str | None = None
    """Domain of utterances that name none; null: they are refused."""
    domain_start: Literal["task", "name"] = "task"
    """What a new token's embedding begins as: that of the task token, or the mean of the pieces of its name."""
    domain_supervised: bool = True
    """The model also learns to predict the domain, so that it can be asked for it (``--domain auto``)."""
    domain_weights: dict[str, float] = Field(default_factory=dict)
    """Factor of the loss of a domain's utterances; 1 where none is named."""
    unfreeze: Unfreeze = Unfreeze()
    """What learns with `training.trainable: blocks`."""

    @field_validator("domains")
    @classmethod
    def _names(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        bad = [name for name in domains if not name.isidentifier() or name in ASKED]
        if bad or not domains or len(set(domains)) < len(domains):
            raise ValueError(
                f"domains: names of letters, digits and underscores, each once, none of {', '.join(ASKED)} (got {list(domains)})"
            )
        return domains

    @model_validator(mode="after")
    def _known(self) -> Options:
        named = [*self.domain_weights, *([self.domain] if self.domain else [])]
        if unknown := [name for name in named if name not in self.domains]:
            raise ValueError(f"{unknown[0]!r} is none of the domains ({', '.join(self.domains)})")
        if bad := [name for name, weight in self.domain_weights.items() if weight <= 0]:
            raise ValueError(f"domain_weights.{bad[0]}: more than 0, or the domain need not be there at all")
        return self
