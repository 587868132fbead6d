"""The ``model:`` block of ``model.type: ctc``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from training.models.options import Contradiction, ModelOptions

OF_WHISPER = ("name", "encoder_context", "context_margin_seconds", "head_layers")
"""Keys that only ``encoder: whisper`` has."""
OF_ITSELF = ("subsampling", "subsampling_channels", "conv_norm", "feature_norm", "edge_silence", "sizes")
"""Keys that a Whisper's encoder leaves no choice of."""
NO_WHISPER = (
    "encoder: whisper has pretrained weights; give the hub id or the folder of a Whisper (or model.pretrained, the "
    "folder of a CTC run)"
)


class Options(ModelOptions):
    """The ``model:`` block of ``model.type: ctc``."""

    weight_keys: ClassVar[tuple[str, ...]] = ("name", "pretrained")

    type: Literal["ctc"] = "ctc"
    """The architecture."""
    task: Literal["transcribe"] = "transcribe"
    """A CTC model transcribes."""
    encoder: Literal["fastconformer", "transformer", "wav2vec2", "whisper"] = "fastconformer"
    """FastConformer (convolutions and attention over log-mels), a plain Transformer over log-mels, wav2vec2
    (raw samples), or the pretrained encoder of a Whisper, whose sizes and log-mels then count."""
    name: str | None = None
    """With ``encoder: whisper``: hub id or folder of the Whisper whose encoder is used; its decoder is not."""
    pretrained: str | None = None
    """Folder of a CTC run, or hub id or folder of a pretrained ``parakeet_ctc`` or wav2vec2: its weights are
    fine-tuned. Where its vocabulary differs, the output layer is initialised again. Stronger than ``name``."""
    encoder_context: Literal["full", "trimmed"] | None = None
    """With ``encoder: whisper``: ``full`` is 30 s for every clip, as in its pretraining; ``trimmed``, or null, the batch's
    longest clip and a margin."""
    context_margin_seconds: float = Field(1.0, ge=0, le=30)
    """With ``encoder: whisper``: silence that a trimmed context keeps after the longest clip."""
    head_layers: int = Field(0, ge=0)
    """With ``encoder: whisper``: new Transformer layers between the encoder and the output, as wide as the encoder; with
    ``conv_kernel`` each has a convolution module. 0: the output layer reads the encoder's states."""
    vocabulary: Literal["characters", "bpe"] = "characters"
    """Tokens: characters, or byte-pair pieces learnt from the training split."""
    vocab_size: int = Field(500, ge=2)
    """Pieces, with ``vocabulary: bpe``."""
    languages: tuple[str, ...] = ("vi", "en")
    """Languages whose letters the vocabulary holds, whether the training split has them or not. The first is taken
    for that of utterances that name none. Not given: the language of most rows, else what the letters of the texts show."""
    d_model: int = Field(256, ge=8)
    """Width of the encoder."""
    num_encoder_layers: int = Field(6, ge=1)
    """Layers of the encoder."""
    num_heads: int = Field(4, ge=1)
    """Attention heads."""
    d_ff: int = Field(1024, ge=8)
    """Width of the feed-forward layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout, everywhere in the encoder; with ``encoder: whisper`` in ``head_layers`` alone."""
    subsampling: Literal[2, 4, 8] = 4
    """Log-mel frames that become one frame of the encoder (1 frame is 10 ms)."""
    subsampling_channels: int = Field(64, ge=1)
    """Channels of the subsampling convolutions."""
    sample_rate: int = Field(16000, ge=1000)
    """Samples per second of the audio that the model takes (the same as ``audio.sample_rate``)."""
    n_mels: int = Field(80, ge=8)
    """Mel bands."""
    n_fft: int | None = Field(None, ge=64)
    """Samples of a Fourier transform; null: the power of two above 25 ms."""
    hop_length: int | None = Field(None, ge=1)
    """Samples between frames; null: 10 ms."""
    conv_norm: Literal["batch", "layer"] = "layer"
    """Norm in FastConformer's convolutions. ``batch`` is the published one; with ``layer`` no clip depends on
    the batch that it is in, which several processes need to give the losses of one."""
    conv_kernel: int = Field(0, ge=0)
    """Kernel of the convolution module in each layer of the Transformer (and of ``head_layers``), in frames, an odd
    number; 0: a plain Transformer without one. FastConformer has its own (``sizes.conv_kernel_size``)."""
    feature_norm: Literal["bands", "clip", "peak"] = "bands"
    """How log-mels are normalised per clip. ``bands``: each band by its mean and deviation, as pretrained FastConformers
    expect. ``clip``: all bands by one mean and deviation, for clips of a word or two. ``peak``: by the loudest point
    alone; silence around the speech changes nothing."""
    edge_silence: float = Field(0.0, ge=0, le=2)
    """Seconds of silence before and after every clip in evaluation and use (``feature_norm: peak``). In training the
    silence is random, see ``augmentation.shift``; there is none in the first ``augmentation.after_epochs``."""
    middle_weight: float = Field(0.0, ge=0, lt=1)
    """Share of the training loss that is CTC on the states of the encoder's middle layer (Lee and Watanabe, 2021). A model
    from scratch may learn in fewer steps; each step computes one more output layer and loss. Not with wav2vec2."""
    sizes: dict[str, Any] = Field(default_factory=dict)
    """Further fields of ``ParakeetEncoderConfig`` (fastconformer) or ``Wav2Vec2Config`` (wav2vec2)."""

    @model_validator(mode="after")
    def _agree(self) -> Options:
        if self.encoder == "transformer" and self.sizes:
            raise ValueError(
                "sizes: the Transformer has d_model, num_encoder_layers, num_heads and d_ff alone"
            )
        if self.conv_kernel and self.encoder != "transformer" and not self.head_layers:
            raise ValueError(
                f"conv_kernel ({self.conv_kernel}) is only for encoder: transformer (and for head_layers of whisper)"
            )
        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel ({self.conv_kernel}) must be an odd number")
        if self.middle_weight and self.encoder == "wav2vec2":
            raise ValueError(
                f"middle_weight ({self.middle_weight:g}): not for encoder: wav2vec2; set it to 0"
            )
        if self.feature_norm != "bands" and self.encoder == "wav2vec2":
            raise ValueError("feature_norm: wav2vec2 takes samples, not log-mels")
        if self.edge_silence and self.feature_norm != "peak":
            raise ValueError(
                f"edge_silence ({self.edge_silence:g}): other norms than feature_norm: peak would change with it"
            )
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of num_heads ({self.num_heads})")
        return self

    @model_validator(mode="after")
    def _whispers_keys(self) -> Options:
        """Keys that only Whisper's encoder has, and those that it decides itself, at another value than their default."""
        whisper = self.encoder == "whisper"
        for key in OF_ITSELF if whisper else OF_WHISPER:
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                reason = "the Whisper itself decides it" if whisper else "only for encoder: whisper"
                raise ValueError(f"{key} ({getattr(self, key)}): {reason}; leave it out")
        return self

    @property
    def learns_vocabulary(self) -> bool:
        return True

    def check_config(self, config: Any) -> list[Contradiction]:
        if self.encoder != "whisper" or self.weights:
            return []
        return [(("model", "name"), NO_WHISPER, (("model", "encoder"),))]
