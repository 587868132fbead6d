"""Speech encoders and mBART decoders: loaded, made from sizes, or known by their public shape alone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    MBart50Tokenizer,
    MBartConfig,
    MBartForCausalLM,
    MBartForConditionalGeneration,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from training.base.errors import UserError
from training.models.common.sizes import SIZES
from training.models.common.weights import cannot_load, load_whole
from training.models.e2e.tokenizer import read_mbart_tokenizer

T = TypeVar("T")


def fetch(key: str, name: str, load: Callable[[], T]) -> T:
    """The result of ``load``; a `UserError` that names the key where the hub or the folder does not have it."""
    try:
        return load()
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise cannot_load(key, name, error) from error


def load_encoder(name: str) -> tuple[PreTrainedModel, Wav2Vec2FeatureExtractor]:
    """A pretrained encoder of raw waveforms, and its feature extractor alone: xlsr-53 has no tokenizer."""
    extractor = fetch("model.encoder", name, lambda: AutoFeatureExtractor.from_pretrained(name))
    encoder = fetch(
        "model.encoder",
        name,
        lambda: load_whole(AutoModel, name, "model.encoder", new=("masked_spec_embed",), dtype=torch.float32),
    )
    if not hasattr(encoder, "_get_feature_vector_attention_mask") or not hasattr(
        encoder.config, "conv_stride"
    ):
        raise UserError(
            f"model.encoder: {name!r} is a {encoder.config.model_type!r}, not a convolutional encoder of raw "
            "waveforms; take a wav2vec2, HuBERT, WavLM or data2vec-audio checkpoint"
        )
    return encoder, extractor


def load_decoder(name: str) -> MBartForCausalLM:
    """The decoder of a pretrained mBART, its embeddings with it.

    Loading ``MBartForCausalLM`` straight from a checkpoint of the whole mBART leaves the embeddings random
    where the file holds them once, under ``model.shared`` (as transformers has written it for years): only
    a line of the load report says so. Hence the whole model is loaded and its decoder taken out.
    """
    config = fetch("model.decoder", name, lambda: AutoConfig.from_pretrained(name))
    if config.model_type != "mbart":
        raise UserError(
            f"model.decoder: {name!r} is a {config.model_type!r}; the decoder must be an mBART-50"
        )
    if not config.is_encoder_decoder:
        return fetch(
            "model.decoder",
            name,
            lambda: load_whole(MBartForCausalLM, name, "model.decoder", dtype=torch.float32),
        )
    whole = fetch(
        "model.decoder",
        name,
        lambda: load_whole(MBartForConditionalGeneration, name, "model.decoder", dtype=torch.float32),
    )
    if whole.final_logits_bias.any():
        raise UserError(
            f"model.decoder: {name!r} has a bias on its logits, which a decoder alone cannot carry"
        )
    return _decoder_of(whole)


def _decoder_of(whole: MBartForConditionalGeneration) -> MBartForCausalLM:
    config = _as_decoder(MBartConfig.from_dict(whole.config.to_dict()))
    with torch.device("meta"):
        decoder = MBartForCausalLM(config)
    decoder.model.decoder = whole.model.decoder
    decoder.lm_head = whole.lm_head
    decoder.model.decoder.config = config
    return decoder


def _as_decoder(config: MBartConfig) -> MBartConfig:
    config.is_decoder, config.is_encoder_decoder, config.add_cross_attention = True, False, True
    return config


def public_encoder(name: str) -> tuple[PreTrainedModel, Wav2Vec2FeatureExtractor]:
    """The encoder's shape on the meta device: from the cache if it is there, else from `SIZES`."""
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
        extractor = AutoFeatureExtractor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        known = _known("model.encoder", name, "wav2vec2")
        config, extractor = Wav2Vec2Config(**known["config"]), Wav2Vec2FeatureExtractor(**known["extractor"])
    with torch.device("meta"):
        return AutoModel.from_config(config), extractor


def public_decoder(name: str) -> MBartForCausalLM:
    """The decoder's shape on the meta device: from the cache if it is there, else from `SIZES`."""
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        config = MBartConfig(**_known("model.decoder", name, "mbart")["config"])
    with torch.device("meta"):
        return MBartForCausalLM(_as_decoder(config))


def _known(key: str, name: str, model_type: str) -> Mapping[str, Any]:
    names = sorted(known for known, facts in SIZES.items() if facts.get("model_type") == model_type)
    if name not in names:
        raise UserError(f"{key}: {name!r} is not in reach, nor among the known sizes ({', '.join(names)})")
    return SIZES[name]


def scratch_encoder(fields: Mapping[str, Any]) -> PreTrainedModel:
    """A random wav2vec2 of these `Wav2Vec2Config` fields."""
    return AutoModel.from_config(_config(Wav2Vec2Config, fields, "model.sizes.encoder"))


def scratch_decoder(fields: Mapping[str, Any], vocabulary: int, positions: int) -> MBartForCausalLM:
    """A random mBART decoder of these `MBartConfig` fields, as many positions as labels may have."""
    layers = fields.get("decoder_layers", 12)
    defaults = {"max_position_embeddings": positions, "encoder_layers": layers, "vocab_size": vocabulary}
    return MBartForCausalLM(_as_decoder(_config(MBartConfig, {**defaults, **fields}, "model.sizes.decoder")))


def _config(kind: type[Any], fields: Mapping[str, Any], key: str) -> Any:
    known = set(kind.__dataclass_fields__)
    for field in fields:
        if field not in known:
            near = difflib.get_close_matches(field, sorted(known), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{key}.{field}: {kind.__name__} has no such field{hint}")
    try:
        return kind(**fields)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{key}: {error.__cause__ or error}") from error


def set_vocabulary(decoder: MBartForCausalLM, old_ids: Sequence[int | None]) -> None:
    """Give the decoder the rows ``old_ids`` of its embedding; a None is a new token.

    New rows are drawn from the normal distribution of the kept ones: as long, and as far from each other, as
    those. Where embeddings stay frozen (LNA, LoRA) a task token is only ever this vector, and attention must be able
    to tell it from the others. Tied embeddings stay tied.
    """
    embedding, head = decoder.model.decoder.embed_tokens, decoder.lm_head
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(_rows(embedding.weight.data, old_ids))
    head.weight = embedding.weight if tied else nn.Parameter(_rows(head.weight.data, old_ids))
    embedding.num_embeddings = head.out_features = len(old_ids)
    decoder.config.vocab_size = len(old_ids)


def _rows(weight: torch.Tensor, old_ids: Sequence[int | None]) -> torch.Tensor:
    rows = weight.new_empty(len(old_ids), weight.shape[1])
    if weight.is_meta:
        return rows
    known = torch.tensor([new for new, old in enumerate(old_ids) if old is not None])
    rows[known] = weight[torch.tensor([old for old in old_ids if old is not None])]
    fresh = torch.tensor([new for new, old in enumerate(old_ids) if old is None], dtype=torch.long)
    mean, spread = rows[known].mean(dim=0), rows[known].std(dim=0)
    rows[fresh] = mean + spread * torch.randn(len(fresh), weight.shape[1])
    return rows


def load_tokenizer(name: str, *, local: bool = False) -> MBart50Tokenizer:
    """The decoder's tokenizer; ``local``: from a folder or the cache, never the network."""
    return fetch(
        "model.decoder",
        f"{name} (tokenizer)",
        lambda: read_mbart_tokenizer(name, local=local),
    )
