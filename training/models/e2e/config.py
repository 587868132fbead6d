"""The ``model:`` block of ``model.type: e2e``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from training.data.options import Block
from training.models.options import ModelOptions


class Sizes(Block):
    """A model from scratch."""

    vocab_size: int = Field(1000, ge=1)
    """Text pieces of the tokenizer that is trained on the training split."""
    encoder: dict[str, Any]
    """Any field of ``Wav2Vec2Config``."""
    decoder: dict[str, Any]
    """Any field of ``MBartConfig``; only the decoder's count."""


class Options(ModelOptions):
    """The ``model:`` block of ``model.type: e2e``."""

    stock_types: ClassVar[tuple[str, ...]] = ("speech-encoder-decoder",)
    weight_keys: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

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
    """Tasks that each clip is trained on; with ``both`` the encoder runs once and the decoder twice."""
    language: str = "vi"
    """Language of transcripts whose row names none (ISO 639, or an mBART code such as ``vi_VN``). Not given: that of most other rows, else what the letters of
    the texts show; the default counts only where there are no data."""
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
    def learns_vocabulary(self) -> bool:
        return self.sizes is not None

    @property
    def can_shrink_weights(self) -> bool:
        return not self.trim_vocabulary and self.sizes is None

    def memory_savings(self) -> Iterator[tuple[str, str]]:
        if self.can_shrink_weights:
            yield "model.trim_vocabulary=true", "unseen pieces of the vocabulary are gone"

    @classmethod
    def stock_options(cls, folder: Path) -> dict[str, Any]:
        """The folder's own weights; labels as long as its decoder's positions, at most the default."""
        decoder = json.loads((folder / "config.json").read_text(encoding="utf8")).get("decoder") or {}
        most = cls.model_fields["max_label_tokens"].default
        return {
            "encoder": str(folder),
            "decoder": str(folder),
            "max_label_tokens": min(most, decoder.get("max_position_embeddings", most)),
        }

    @property
    def languages(self) -> tuple[str, str]:
        """Language of transcripts and of translations, where a row names none."""
        return self.language, self.target_language or self.language
