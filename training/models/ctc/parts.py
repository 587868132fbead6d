"""CTC models from sizes, from pretrained weights with the same or another vocabulary, or from a run's folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    ParakeetCTCConfig,
    PreTrainedConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from training.base.errors import UserError
from training.models.common import SETTINGS
from training.models.ctc.model import (
    BLANK_ID,
    FastConformerCtc,
    TransformerCtc,
    TransformerCtcConfig,
    Wav2Vec2Ctc,
)
from training.models.ctc.processor import ClipNormExtractor, CtcProcessor, edge_silence, log_mel_extractor
from training.models.ctc.tokenizer import FILE, CtcTokenizer
from training.models.ctc.whisper import WhisperCtc, WhisperCtcConfig
from training.models.e2e.parts import fetch

CLASSES: Mapping[str, tuple[Any, Any]] = {
    "fastconformer": (FastConformerCtc, ParakeetCTCConfig),
    "transformer": (TransformerCtc, TransformerCtcConfig),
    "wav2vec2": (Wav2Vec2Ctc, Wav2Vec2Config),
    "whisper": (WhisperCtc, WhisperCtcConfig),
}
HEADS = {
    "fastconformer": "ctc_head",
    "transformer": "ctc_head",
    "wav2vec2": "lm_head",
    "whisper": "ctc_head",
}
FIELDS = {
    "d_model": ("hidden_size", "d_model"),
    "num_encoder_layers": ("num_hidden_layers", "num_encoder_layers"),
    "num_heads": ("num_attention_heads", "num_heads"),
    "d_ff": ("intermediate_size", "d_ff", "encoder_ffn_dim"),
    "subsampling": ("subsampling_factor",),
    "subsampling_channels": ("subsampling_conv_channels",),
    "conv_kernel": ("conv_kernel", "head_kernel"),
    "head_layers": ("head_layers",),
}
"""Our sizes by their names in the configurations of checkpoints."""
DROPOUTS = ("dropout", "hidden_dropout", "activation_dropout", "attention_dropout", "final_dropout")
"""Rates in these configurations that our one ``dropout`` stands for."""


class Sound(NamedTuple):
    """Log-mels: samples a second, bands, in samples the transform and the shift (None: 25 and 10 ms), the norm, and
    seconds of silence on either side."""

    sample_rate: int
    n_mels: int
    n_fft: int | None = None
    hop_length: int | None = None
    feature_norm: str = "bands"
    edge_silence: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model. ``more``: further fields of the stock configuration. ``head_layers``: between a Whisper's encoder
    and the output. ``settings``: what the folder must store beside sizes."""

    encoder: str
    width: int
    layers: int
    heads: int
    feed_forward: int
    dropout: float
    subsampling: int
    subsampling_channels: int
    conv_norm: str
    conv_kernel: int
    sound: Sound
    more: Mapping[str, Any] = field(default_factory=dict)
    head_layers: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def common(self) -> dict[str, Any]:
        """The fields that stock encoders call the same."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "attention_dropout": self.dropout,
            "activation_dropout": self.dropout,
            "layerdrop": 0.0,
        }


class Pretrained(NamedTuple):
    """The result of `pretrained`; the notes describe the output layer."""

    model: Any
    processor: CtcProcessor
    notes: tuple[str, ...]


def scratch(sizes: Sizes, tokenizer: CtcTokenizer, *, meta: bool = False) -> tuple[Any, CtcProcessor]:
    """A model without pretrained weights, and its processor. Raises `UserError` for sizes that cannot be."""
    make = {"fastconformer": _fastconformer, "transformer": _transformer, "wav2vec2": _wav2vec2}
    try:
        config = make[sizes.encoder](sizes, len(tokenizer))
        extractor = _extractor(sizes, config)
        remember(config, sizes, sizes.conv_norm, extractor)
        with torch.device("meta" if meta else "cpu"):
            model = CLASSES[sizes.encoder][0](config)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"model: these sizes cannot be: {_first_line(error)}") from error
    if meta:
        torch.nn.Module.to(model, "meta")  # some buffers ignore the device context
    return model, CtcProcessor(extractor, tokenizer)


def _fastconformer(sizes: Sizes, vocabulary: int) -> PreTrainedConfig:
    encoder = {
        **sizes.common,
        "dropout": sizes.dropout,
        "num_mel_bins": sizes.sound.n_mels,
        "subsampling_factor": sizes.subsampling,
        "subsampling_conv_channels": sizes.subsampling_channels,
        "scale_input": False,
        **sizes.more,
    }
    return ParakeetCTCConfig(vocab_size=vocabulary, pad_token_id=BLANK_ID, encoder_config=encoder)


def _transformer(sizes: Sizes, vocabulary: int) -> PreTrainedConfig:
    return TransformerCtcConfig(
        vocab_size=vocabulary,
        d_model=sizes.width,
        num_encoder_layers=sizes.layers,
        num_heads=sizes.heads,
        d_ff=sizes.feed_forward,
        dropout=sizes.dropout,
        num_mel_bins=sizes.sound.n_mels,
        subsampling_factor=sizes.subsampling,
        subsampling_conv_channels=sizes.subsampling_channels,
        conv_kernel=sizes.conv_kernel,
    )


def _wav2vec2(sizes: Sizes, vocabulary: int) -> PreTrainedConfig:
    fields = {**sizes.common, "hidden_dropout": sizes.dropout, "final_dropout": sizes.dropout, **sizes.more}
    unknown = [name for name in sizes.more if name not in Wav2Vec2Config().to_dict()]
    if unknown:
        raise UserError(f"model.sizes.{unknown[0]}: Wav2Vec2Config has no such field")
    return Wav2Vec2Config(vocab_size=vocabulary, pad_token_id=BLANK_ID, **fields)


def _extractor(sizes: Sizes, config: Any) -> Any:
    if sizes.encoder != "wav2vec2":
        return log_mel_extractor(*sizes.sound)
    return Wav2Vec2FeatureExtractor(
        sampling_rate=sizes.sound.sample_rate, return_attention_mask=config.feat_extract_norm == "layer"
    )


def remember(config: Any, sizes: Sizes, conv_norm: str, extractor: Any) -> None:
    """Settings that a checkpoint stores beside the fields of the stock configuration."""
    settings = {
        "type": "ctc",
        "encoder": sizes.encoder,
        "conv_norm": conv_norm,
        "mask_encoder": bool(extractor.return_attention_mask),
        "sample_rate": extractor.sampling_rate,
        **sizes.settings,
    }
    setattr(config, SETTINGS, settings)


def restore(encoder: str, folder: Path) -> tuple[Any, CtcProcessor]:
    """Model and processor of a run's folder or checkpoint, as they were saved."""
    model_class, config_class = CLASSES[encoder]
    config = config_class.from_pretrained(folder)
    _same_encoder(encoder, config, str(folder))
    model = model_class.from_pretrained(folder, config=config, dtype=torch.float32)
    return model, CtcProcessor.from_pretrained(folder)


def _same_encoder(encoder: str, config: Any, name: str) -> None:
    there = (getattr(config, SETTINGS, None) or {}).get("encoder", encoder)
    if there != encoder:
        raise UserError(f"model.encoder: {encoder}, but {name} holds a {there}")


def pretrained(
    sizes: Sizes,
    name: str,
    tokenizer: CtcTokenizer,
    named: Collection[str],
    *,
    meta: bool = False,
    key: str = "model.pretrained",
) -> Pretrained:
    """The weights of ``name`` with an output layer for ``tokenizer``.

    Rows of the output layer whose tokens the checkpoint knows too are carried over, all others are new.
    ``named``: sizes that the configuration names; `UserError` where the checkpoint has others. ``key`` gives ``name``,
    for messages.
    """
    config = _config_of(sizes.encoder, name, key)
    agree(sizes, config, name, named)
    extractor = fetch(key, name, lambda: AutoFeatureExtractor.from_pretrained(name))
    same_sound(sizes.sound, extractor, name, named)
    if "dropout" in named:
        _set_dropout(config, sizes.dropout)
    before = _tokens(name)
    stock_norm = (getattr(config, SETTINGS, None) or {}).get("conv_norm", "batch")
    config.vocab_size, config.pad_token_id = len(tokenizer), BLANK_ID
    remember(config, sizes, stock_norm, extractor)
    model_class = CLASSES[sizes.encoder][0]
    if meta:
        with torch.device("meta"):
            return Pretrained(model_class(config), CtcProcessor(extractor, tokenizer), ())
    model = fetch(
        key,
        name,
        lambda: model_class.from_pretrained(
            name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        ),
    )
    note = _new_head(model, sizes.encoder, name, before, tokenizer.tokens)
    return Pretrained(model, CtcProcessor(extractor, tokenizer), (note,))


def _config_of(encoder: str, name: str, key: str) -> Any:
    config = fetch(key, name, lambda: any_config(name))
    _same_encoder(encoder, config, name)
    wanted = CLASSES[encoder][1]
    if not isinstance(config, wanted):
        raise UserError(
            f"{key}: {name!r} is a {config.model_type!r}, and model.encoder: {encoder} takes a "
            f"{wanted.model_type!r}"
        )
    return config


def any_config(name: str) -> Any:
    """The configuration of a CTC run's folder, or of any checkpoint that transformers knows."""
    path = Path(name, "config.json")
    if path.is_file() and f'"{TransformerCtcConfig.model_type}"' in path.read_text(encoding="utf-8"):
        return TransformerCtcConfig.from_pretrained(name)
    return AutoConfig.from_pretrained(name)


def agree(sizes: Sizes, config: Any, name: str, named: Collection[str]) -> None:
    """`UserError` where the configuration names sizes that the checkpoint ``name`` does not have."""
    ours = {
        "d_model": sizes.width,
        "num_encoder_layers": sizes.layers,
        "num_heads": sizes.heads,
        "d_ff": sizes.feed_forward,
        "subsampling": sizes.subsampling,
        "subsampling_channels": sizes.subsampling_channels,
    }
    if sizes.encoder in (
        "transformer",
        "whisper",
    ):  # wav2vec2 has a field of this name that means another thing
        ours["conv_kernel"] = sizes.conv_kernel
    if sizes.encoder == "whisper":
        ours["head_layers"] = sizes.head_layers
    inner = getattr(config, "encoder_config", config)
    there = {
        key: next((getattr(inner, field) for field in FIELDS[key] if hasattr(inner, field)), None)
        for key in ours
    }
    _refuse_others(ours, there, f"{name} has", named)


def same_sound(sound: Sound, extractor: Any, name: str, named: Collection[str]) -> None:
    """`UserError` where the configuration names log-mels that the checkpoint ``name`` does not take."""
    if extractor.sampling_rate != sound.sample_rate:
        raise UserError(
            f"model.sample_rate: {sound.sample_rate}, but {name} takes {extractor.sampling_rate} samples a second"
        )
    if isinstance(extractor, Wav2Vec2FeatureExtractor):
        return
    norm = extractor.feature_norm if isinstance(extractor, ClipNormExtractor) else "bands"
    there = {
        "n_mels": extractor.feature_size,
        "n_fft": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "feature_norm": norm,
        "edge_silence": edge_silence(extractor),
    }
    _refuse_others(sound._asdict(), there, f"{name} takes", named)


def _refuse_others(
    ours: Mapping[str, Any], there: Mapping[str, Any], subject: str, named: Collection[str]
) -> None:
    """`UserError` for the first key that the configuration names with another value than the checkpoint's."""
    for key, value in there.items():
        if key in named and None not in (ours[key], value) and ours[key] != value:
            raise UserError(
                f"model.{key}: {ours[key]}, but {subject} {value}; leave it out (or set it to {value})"
            )


def _set_dropout(config: Any, dropout: float) -> None:
    inner = getattr(config, "encoder_config", config)
    for name in ("head_dropout",) if isinstance(config, WhisperCtcConfig) else DROPOUTS:
        if hasattr(inner, name):
            setattr(inner, name, dropout)


def _tokens(name: str) -> tuple[str, ...]:
    """The vocabulary of a CTC model of ours; none for other checkpoints, whose output layer is made anew."""
    return CtcTokenizer.from_pretrained(name).tokens if Path(name, FILE).is_file() else ()


def _new_head(model: Any, encoder: str, name: str, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """Make the output layer anew where the vocabulary is another one; what became of it, for the user."""
    if before == after:
        return f"{name}: the same vocabulary, the output layer is kept"
    head = getattr(model, HEADS[encoder])
    old = _weights(name, HEADS[encoder]) if before else {}
    head.reset_parameters()
    places = {token: i for i, token in enumerate(before)}
    shared = [i for i, token in enumerate(after) if token in places] if old else []
    with torch.no_grad():
        for part, values in old.items():
            getattr(head, part)[shared] = values[[places[after[i]] for i in shared]]
    return (
        f"{name}: another vocabulary ({len(before) or 'unknown'} tokens there, {len(after)} here): the output layer "
        f"is made anew, {len(shared)} of its rows carried over"
    )


def _weights(folder: str, head: str) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    path = Path(folder, "model.safetensors")
    with safe_open(path, framework="pt") as file:
        return {part: file.get_tensor(f"{head}.{part}") for part in ("weight", "bias")}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
