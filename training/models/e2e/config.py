"""The ``model:`` block of ``model.type: e2e``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.data.example import TASKS


class Sizes(BaseModel):
    """A model from scratch."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    vocab_size: int = Field(1000, ge=1)
    """Text pieces of the tokenizer that is trained on the training split."""
    encoder: dict[str, Any]
    """Any field of ``Wav2Vec2Config``."""
    decoder: dict[str, Any]
    """Any field of ``MBartConfig``; only the decoder's count."""


class Options(BaseModel):
    """The ``model:`` block of ``model.type: e2e``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: Literal["e2e"] = "e2e"
    """The architecture."""
    encoder: str | None = None
    """Hub id or folder of a pretrained wav2vec2 (HuBERT, WavLM, …)."""
    decoder: str | None = None
    """Hub id or folder of a pretrained mBART-50."""
    add_adapter: bool = True
    """A linear projection from the encoder's width to the decoder's, where they differ. ``false`` refuses
    a pair of different widths instead."""
    task: Literal["transcribe", "translate", "both"] = "both"
    """What each clip is trained on; with ``both`` the encoder runs once and the decoder twice."""
    language: str = "vi"
    """Language of transcripts whose row names none (ISO 639, or an mBART code such as ``vi_VN``)."""
    target_language: str | None = None
    """Language of translations whose row names none; default: ``language``."""
    sizes: Sizes | None = None
    """From scratch, instead of ``encoder`` and ``decoder``."""
    ctc_weight: float = Field(0.0, ge=0)
    """Weight of a CTC loss of the encoder on the transcript's tokens; helps models from scratch to align."""
    trim_vocabulary: bool = False
    """Keep only the pieces of the decoder's vocabulary that the training texts need: mBART-50's 250,054 ids
    take more memory than all its layers."""
    max_label_tokens: int = Field(256, ge=8)
    """Longest label sequence, prompt and EOS included; longer examples are dropped and listed."""

    @model_validator(mode="after")
    def _one_origin(self) -> Options:
        named = (self.encoder is not None) + (self.decoder is not None)
        if named == 1 or (named == 2) == (self.sizes is not None):
            raise ValueError(
                "give either encoder and decoder (pretrained models) or sizes (from scratch), not both"
            )
        if self.trim_vocabulary and self.sizes is not None:
            raise ValueError(
                "trim_vocabulary: a vocabulary from scratch has nothing to trim; set sizes.vocab_size"
            )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of the labels' second axis."""
        return TASKS if self.task == "both" else (self.task,)

    @property
    def languages(self) -> tuple[str, str]:
        """Language of transcripts and of translations, where a row names none."""
        return self.language, self.target_language or self.language
