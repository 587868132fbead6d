"""The ``model:`` block of ``model.type: domain_whisper``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from training.data.options import Block
from training.models.architecture import ASKED
from training.models.whisper import config as whisper


class Unfreeze(Block):
    """Parameters that ``training.trainable: blocks`` trains (and that have adapters with ``lora``), beside the domain tokens."""

    encoder_blocks: Annotated[int, Field(ge=0)] = 4
    """Number of last blocks of the encoder that are trained."""
    decoder_blocks: Annotated[int, Field(ge=0)] = 4
    """Number of last blocks of the decoder that are trained: their attention and feed-forward layers, not their norms."""


class Options(whisper.Options):
    """The ``model:`` block of ``model.type: domain_whisper``: that of ``whisper``, and the domains."""

    stock_types: ClassVar[tuple[str, ...]] = ()

    type: Literal["domain_whisper"] = "domain_whisper"  # type: ignore[assignment]
    """The architecture."""
    language: str = "ko"
    """Language token of rows that name no language (ISO 639). Not given: that of most other rows, else what the letters of
    the texts show; the default counts only where there are no data."""
    task: Literal["transcribe", "translate", "both"] = "transcribe"
    """Tasks that each clip is trained on."""
    domains: tuple[str, ...] = ("normal", "dyslexic")
    """Domains (populations of speakers), each with a token ``<|domain:…|>``; the column ``domain`` names that of an utterance."""
    domain: str | None = None
    """Domain of utterances that name none; null: they are refused."""
    domain_start: Literal["task", "name"] = "task"
    """First embedding of a new token: that of the task token, or the mean of the pieces of its name."""
    domain_supervised: bool = True
    """The model also learns to predict the domain, for ``--domain auto``."""
    domain_weights: dict[str, float] = Field(default_factory=dict)
    """Factor of the loss of a domain's utterances; 1 where none is named."""
    unfreeze: Unfreeze = Unfreeze()
    """Blocks that `training.trainable: blocks` trains."""

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
