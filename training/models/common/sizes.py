"""Public architecture facts of the checkpoints that the shipped configurations name.

From the ``config.json`` and ``preprocessor_config.json`` that each checkpoint publishes. They let a dry run
count parameters and plan memory where neither the network nor a cache has the weights.
``config``: fields of the checkpoint's configuration class; ``extractor``: fields of its feature extractor.
"""

from __future__ import annotations

from typing import Any

_WAV2VEC2_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


def _whisper(width: int, layers: int, heads: int, *, mels: int = 80, vocab: int = 51_865) -> dict[str, Any]:
    """Encoder and decoder of one depth and width; feed-forward four times the width."""
    config = {
        "vocab_size": vocab,
        "num_mel_bins": mels,
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "decoder_start_token_id": 50_258,
        "pad_token_id": 50_257,
        "bos_token_id": 50_257,
        "eos_token_id": 50_257,
    }
    return {"model_type": "whisper", "config": config, "extractor": {"feature_size": mels}}


def _qwen2(
    width: int, layers: int, heads: int, kv_heads: int, ffn: int, *, vocab: int = 151_936, tied: bool = True
) -> dict[str, Any]:
    config = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": tied,
    }
    return {"model_type": "qwen2", "config": config}


SIZES: dict[str, dict[str, Any]] = {
    "openai/whisper-tiny": _whisper(384, 4, 6),
    "openai/whisper-base": _whisper(512, 6, 8),
    "openai/whisper-small": _whisper(768, 12, 12),
    "openai/whisper-medium": _whisper(1024, 24, 16),
    "openai/whisper-large-v2": _whisper(1280, 32, 20),
    "openai/whisper-large-v3": _whisper(1280, 32, 20, mels=128, vocab=51_866),
    "facebook/wav2vec2-base": {
        "model_type": "wav2vec2",
        "config": {
            "activation_dropout": 0.0,
            "feat_proj_dropout": 0.1,
            "layerdrop": 0.05,
            "mask_time_prob": 0.05,
        },
        "extractor": {"do_normalize": True, "return_attention_mask": False},
    },
    "facebook/wav2vec2-large-960h": {
        "model_type": "wav2vec2",
        "config": {**_WAV2VEC2_LARGE, "activation_dropout": 0.1, "feat_proj_dropout": 0.1},
        "extractor": {"do_normalize": True, "return_attention_mask": False},
    },
    "facebook/wav2vec2-large-xlsr-53": {
        "model_type": "wav2vec2",
        "config": {
            **_WAV2VEC2_LARGE,
            "activation_dropout": 0.0,
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "feat_extract_norm": "layer",
            "feat_proj_dropout": 0.1,
            "mask_time_prob": 0.075,
        },
        "extractor": {"do_normalize": True, "return_attention_mask": True},
    },
    "facebook/mbart-large-50": {
        "model_type": "mbart",
        "config": {
            "vocab_size": 250_054,
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            "max_position_embeddings": 1024,
            "activation_function": "relu",
            "scale_embedding": True,
        },
    },
    "google/gemma-3-270m": {
        "model_type": "gemma3_text",
        "config": {
            "vocab_size": 262_144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "max_position_embeddings": 32_768,
            "sliding_window": 512,
        },
    },
    "Qwen/Qwen2-0.5B": _qwen2(896, 24, 14, 2, 4864),
    "Qwen/Qwen2-1.5B": _qwen2(1536, 28, 12, 2, 8960),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18_944, vocab=152_064, tied=False),
}
