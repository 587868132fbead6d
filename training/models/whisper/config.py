"""The ``model:`` block of ``model.type: whisper``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from training.models.architecture import AUTO
from training.models.options import ModelOptions

MULTILINGUAL_VOCABULARY = 51_865
"""Tokens of the smallest multilingual Whisper; the English ones have one less."""


class Options(ModelOptions):
    """The ``model:`` block of ``model.type: whisper``."""

    stock_types: ClassVar[tuple[str, ...]] = ("whisper",)
    weight_keys: ClassVar[tuple[str, ...]] = ("name",)

    type: Literal["whisper"] = "whisper"
    """The architecture."""
    name: str | None = None
    """Hub id or folder of a pretrained Whisper. Absent: from scratch, with ``sizes``."""
    language: str = "vi"
    """Language token of rows that name no language (ISO 639). Not given: that of most other rows, else what the letters of
    the texts show; the default counts only where there are no data. ``auto`` (pretrained only): such rows are not trained on, and
    transcription detects the language."""
    target_language: str | None = None
    """Language of the translations; default: ``language``. Stored with the checkpoint,
    because stock ``<|translate|>`` means into English."""
    task: Literal["transcribe", "translate", "both"] = "both"
    """Tasks that each clip is trained on; with ``both`` the encoder runs once and the decoder twice."""
    encoder_context: Literal["full", "trimmed"] = "trimmed"
    """``full``: 30 s for every clip. ``trimmed``: the batch's longest clip and a margin."""
    context_margin_seconds: float = Field(1.0, ge=0, le=30)
    """Silence that a trimmed context keeps after the longest clip."""
    full_context_share: float = Field(0.02, ge=0, le=1)
    """Share of the training clips that are padded to 30 s although the context is trimmed, drawn anew for each epoch. They come
    in batches of their own: as many as ``training.max_batch_seconds`` hold at 30 s, at least four (``training.batch_size``
    permitting)."""
    timestamps: float = Field(0.0, ge=0, le=1)
    """Share of the training samples whose labels carry times, as Whisper writes them (``<|0.00|> text<|2.40|>``): pipelines for
    long recordings decode with them. Needs OpenAI's vocabulary."""
    previous_text: float = Field(0.0, ge=0, le=1)
    """Share of the training samples whose prompt is the text that was spoken before in the recording, at most 223 tokens. Of
    clips that no other precedes there is none."""
    ctc_weight: float = Field(0.0, ge=0)
    """Weight of a CTC loss of the encoder on the transcript; helps models from scratch to align."""
    max_label_tokens: int = Field(448, ge=8)
    """Longest label sequence, prompt and EOS included; longer examples are dropped and listed."""
    sizes: dict[str, Any] | None = None
    """From scratch: any field of ``WhisperConfig``, and ``vocab_size`` = text tokens of the tokenizer that is
    trained on the training split."""

    @model_validator(mode="after")
    def _one_origin(self) -> Options:
        if (self.name is None) == (self.sizes is None):
            raise ValueError("give either name (a pretrained model) or sizes (from scratch), not both")
        if self.sizes is not None and self.language == AUTO:
            raise ValueError(
                "language: auto needs a pretrained model (name); one from scratch detects no language"
            )
        return self

    @model_validator(mode="after")
    def _times_can_be_written(self) -> Options:
        if self.sizes is not None and self.timestamps:
            raise ValueError(
                "timestamps: a vocabulary of one's own (sizes) has no timestamp tokens: 0, or take a pretrained model (name)"
            )
        return self

    @property
    def full_share(self) -> float:
        return self.full_context_share if self.encoder_context == "trimmed" else 0.0

    @property
    def learns_vocabulary(self) -> bool:
        return self.sizes is not None

    def memory_savings(self) -> Iterator[tuple[str, str]]:
        if self.full_context_share and self.encoder_context == "trimmed":
            yield "model.full_context_share=0", "stock pipelines, which pad to 30 s, are not practised"

    @classmethod
    def stock_options(cls, folder: Path) -> dict[str, Any]:
        language = AUTO if is_multilingual(folder) else "en"
        return {"name": str(folder), "encoder_context": "full", "language": language}


def is_multilingual(folder: Path) -> bool:
    """Whether a stock folder's model knows several languages; where it does not say so, its vocabulary does, as in Whisper."""
    said = _json(folder / "generation_config.json").get("is_multilingual")
    size = _json(folder / "config.json").get("vocab_size", 0)
    return bool(said) if said is not None else size >= MULTILINGUAL_VOCABULARY


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
