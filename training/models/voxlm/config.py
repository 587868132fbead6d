"""The ``model:`` block of ``model.type: voxlm``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from training.data.example import TRANSCRIBE
from training.data.options import Block, Contradiction
from training.models.options import ModelOptions


class AlignerSizes(Block):
    """Size of the aligner that phase 2 trains."""

    width: int = Field(default=256, ge=8)
    """Width of its layers."""
    layers: int = Field(default=2, ge=0)
    """Layers over the frames, and as many over the words."""
    heads: int = Field(default=4, ge=1)
    """Heads of their attention."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout between them."""
    ctc_weight: float = Field(default=0.3, ge=0)
    """Weight of the second loss, CTC of the characters on the frames."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> AlignerSizes:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads})")
        return self


class Options(ModelOptions):
    """The ``model:`` block of ``model.type: voxlm``."""

    weight_keys: ClassVar[tuple[str, ...]] = ("name", "audio_encoder", "llm")

    type: Literal["voxlm"] = "voxlm"
    """The architecture."""
    name: str | None = None
    """Folder of a VoxLM to continue from, whatever the two keys below say; phase 2 needs that of phase 1."""
    audio_encoder: str | None = None
    """Hub id or folder of a Whisper, whose encoder is used; its decoder is not."""
    llm: str | None = None
    """Hub id or folder of a causal language model."""
    phase: Literal[1, 2] = 1
    """1: trains transcription. 2: trains the times of words; all parameters of phase 1 are frozen."""
    language: str = "en"
    """Language of rows that name none (ISO 639). Not given: that of most other rows, else what the letters of
    the texts show; the default counts only where there are no data."""
    instruction: str = "Transcribe the speech."
    """The instruction to the language model, after the audio."""
    encoder_context: Literal["full", "trimmed"] = "full"
    """``full``: the encoder takes 30 s, as in its pretraining, and its states after the clip are dropped. ``trimmed``: the
    batch's longest clip and a margin, for encoders that were trained in this way."""
    context_margin_seconds: float = Field(1.0, ge=0, le=30)
    """Silence that a trimmed context keeps after the longest clip."""
    stack: int = Field(4, ge=1)
    """Encoder frames (20 ms each) that become one embedding of the language model."""
    projector_width: int | None = Field(None, ge=1)
    """Hidden width of the projector; null: that of the language model, times two."""
    frozen_weights: Literal["fp32", "bf16"] = "fp32"
    """Type of the frozen weights of the encoder and the language model; the projector, the adapters and the aligner are
    always fp32."""
    max_label_tokens: int = Field(448, ge=8)
    """Longest response, template and EOS included; longer examples are dropped and listed."""
    aligner: AlignerSizes = AlignerSizes()
    """The aligner that phase 2 adds."""
    alignment_weight: float = Field(1.0, ge=0)
    """Weight of the pointers' loss in phase 2, beside the second loss's `aligner.ctc_weight`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Options:
        parts = (self.audio_encoder is not None) + (self.llm is not None)
        if parts == 1 or not (parts or self.name):
            raise ValueError("give audio_encoder and llm (a new model), or name (one to go on with)")
        if self.phase == 2 and self.name is None:
            raise ValueError(
                "phase: 2 goes on with a model of phase 1; name its folder (model.name, --checkpoint)"
            )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """A VoxLM transcribes; its block has no key ``task``."""
        return (TRANSCRIBE,)

    @property
    def scored_by_word_times(self) -> bool:
        return self.phase == 2

    @classmethod
    def stock_options(cls, folder: Path) -> dict[str, Any]:
        return {"name": str(folder)}

    def check_config(self, config: Any) -> list[Contradiction]:
        if self.phase != 2 or not config.augmentation.enabled:
            return []
        moving = [name for name in ("speed", "shift", "join") if getattr(config.augmentation, name).prob]
        message = "moves the words, whose times training.phase 2 learns; set it to 0, or augmentation.enabled to false"
        return [(("augmentation", name, "prob"), message, (("model", "phase"),)) for name in moving]
