"""Loading pretrained weights: nothing is filled with random numbers unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import whisper_assets
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig

from training.base.errors import UserError
from training.models.architecture import BuildContext
from training.models.common.weights import load_whole
from training.models.e2e.parts import fetch
from training.models.lookup import load
from training.models.whisper.model import MultitaskWhisper

ENCODER = Wav2Vec2Config(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8, 8),
    conv_stride=(20, 16),
    conv_kernel=(20, 16),
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)


def rewrite(folder: Path, change: object) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})  # type: ignore[operator]


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    architecture = whisper_assets.tiny()
    architecture.model.save_pretrained(tmp_path)
    architecture.processor.save_pretrained(tmp_path)
    return tmp_path


def test_weights_under_a_wrappers_names_are_refused(whisper: Path) -> None:
    rewrite(whisper, lambda weights: {f"wrapped.{name}": value for name, value in weights.items()})
    module = load("whisper")
    with pytest.raises(
        UserError, match=r"model.name: .* lacks \d+ of this model's weights, such as model\.decoder"
    ):
        module.build(module.Options(name=str(whisper), max_label_tokens=64), BuildContext())


def test_one_missing_weight_is_named(whisper: Path) -> None:
    lost = "model.encoder.layers.0.fc1.weight"
    rewrite(whisper, lambda weights: {n: v for n, v in weights.items() if n != lost})
    with pytest.raises(UserError, match=f"lacks 1 of this model's weights, such as {lost}"):
        load_whole(MultitaskWhisper, str(whisper), "model.name")


def test_a_new_ctc_head_and_tied_weights_are_no_loss(whisper: Path) -> None:
    assert not any(
        name.startswith(("ctc_head", "proj_out")) for name in load_file(whisper / "model.safetensors")
    )
    module = load("whisper")
    context = BuildContext(texts=lambda: iter([("transcribe", "vi", "xin chào")]))
    architecture = module.build(
        module.Options(name=str(whisper), ctc_weight=0.3, max_label_tokens=64), context
    )
    assert architecture.model.proj_out.weight is architecture.model.model.decoder.embed_tokens.weight
    assert WhisperConfig.from_pretrained(whisper).d_model == architecture.model.config.d_model


def test_older_names_of_weight_norm_are_still_the_weights(tmp_path: Path) -> None:
    """Public wav2vec2 checkpoints name the positional convolution's norm as torch did before 2.0."""
    model = Wav2Vec2Model(ENCODER)
    model.save_pretrained(tmp_path)
    new = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    old = "encoder.pos_conv_embed.conv.weight_"
    rewrite(
        tmp_path,
        lambda weights: {
            "wav2vec2." + n.replace(f"{new}0", f"{old}g").replace(f"{new}1", f"{old}v"): v
            for n, v in weights.items()
            if n != "masked_spec_embed"
        },
    )
    loaded = load_whole(Wav2Vec2Model, str(tmp_path), "model.encoder", new=("masked_spec_embed",))
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert name == "masked_spec_embed" or torch.equal(ours, theirs), name


def test_what_is_missing_reaches_the_user_unwrapped() -> None:
    def lacking() -> None:
        raise UserError("model.encoder: 'x' lacks 3 of this model's weights")

    with pytest.raises(UserError, match=r"^model.encoder: 'x' lacks 3"):
        fetch("model.encoder", "x", lacking)
