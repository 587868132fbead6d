"""``profile.precision: auto`` on machines that it is told of, and what training then computes in."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trainer_assets
import whisper_assets
from transformers import WhisperConfig

from training.config.load import config_from
from training.config.schema import Config
from training.engine import arithmetic
from training.engine import run as runs
from training.models.common import attention
from training.models.whisper.model import MultitaskWhisper


def config(**profile: Any) -> Config:
    training = profile.pop("training", {})
    return config_from({"profile": {"precision": "auto", **profile}, "training": training})


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpu: tuple[int, int] | None = None,
    bf16: bool = False,
    amx: bool = False,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)


@pytest.mark.parametrize(
    ("found", "profile", "chosen", "words"),
    [
        ({"bf16": True}, {"device": "cpu"}, "bf16", "AVX512-BF16"),
        ({"amx": True, "bf16": True}, {"device": "auto"}, "bf16", "AMX"),
        ({}, {"device": "cpu"}, "fp32", "neither AVX512-BF16 nor AMX"),
        ({"gpu": (8, 6)}, {"device": "auto"}, "bf16", "a GPU computes in it"),
        ({"gpu": (7, 5)}, {"device": "cuda"}, "fp16", "too old for bf16"),
        ({"gpu": (8, 6)}, {"device": "cpu"}, "fp32", "this processor"),
        ({}, {"device": "cuda"}, "bf16", "none to ask"),
    ],
)
def test_the_choice_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], profile: dict[str, Any], chosen: str, words: str
) -> None:
    machine(monkeypatch, **found)
    choice = arithmetic.choice(config(**profile))
    assert choice.precision == chosen and words in str(choice)


def test_what_the_training_block_says_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, bf16=True)
    assert arithmetic.precision(config(device="cpu", training={"bf16": False})) == "fp32"
    machine(monkeypatch)
    assert str(arithmetic.choice(config(device="cpu", training={"bf16": True}))) == "bf16"


@pytest.mark.parametrize("bf16", [True, False])
def test_the_trainers_arguments_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bf16: bool
) -> None:
    machine(monkeypatch, bf16=bf16)
    caplog.set_level(logging.INFO)
    run: Any = SimpleNamespace(config=config(device="auto"), dev=None)
    arguments = runs.arguments(run)
    assert (arguments.bf16, arguments.fp16, arguments.use_cpu) == (bf16, False, True)
    assert [one for one in caplog.messages if "precision: " + ("bf16" if bf16 else "fp32") in one]


def test_bf16_without_a_gpu_is_refused_with_the_truth_about_this_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Any = SimpleNamespace(config=config(device="auto", precision="bf16"), dev=None)
    for bf16, words in ((True, r"faster than fp32 .*AVX512-BF16"), (False, "slow on this processor")):
        machine(monkeypatch, bf16=bf16)
        with pytest.raises(runs.UserError, match=words):
            runs.arguments(run)


def model() -> MultitaskWhisper:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {key: value for key, value in whisper_assets.SIZES.items() if key != "vocab_size"}
    return MultitaskWhisper(
        WhisperConfig(vocab_size=60, pad_token_id=0, bos_token_id=0, eos_token_id=0, **sizes)
    )


def gradients(of: MultitaskWhisper) -> tuple[float, torch.Tensor]:
    torch.manual_seed(1)
    mels = torch.randn(2, of.config.num_mel_bins, 120)
    labels = torch.randint(1, 60, (2, 2, 7))
    with torch.autocast("cpu", torch.bfloat16):
        loss = of(mels, decoder_input_ids=labels, labels=labels).loss
    loss.backward()
    grads = [parameter.grad.flatten() for parameter in of.parameters() if parameter.grad is not None]
    return float(loss), torch.cat(grads)


def test_matrix_products_give_the_loss_and_gradients_of_torchs_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock, ours = model().eval(), model().eval()
    used: list[bool] = []
    suits = attention._suits

    def watched(*given: Any) -> bool:
        used.append(suits(*given))
        return used[-1]

    monkeypatch.setattr(attention, "_suits", watched)
    assert attention.use_products(ours)
    expected, wanted = gradients(stock)
    found, got = gradients(ours)
    layers = ours.config.encoder_layers + 2 * ours.config.decoder_layers
    assert used == [True] * layers  # encoder, decoder (causal) and cross-attention
    assert found == pytest.approx(expected, rel=5e-3)
    assert torch.nn.functional.cosine_similarity(got, wanted, dim=0) > 0.995


def test_training_and_its_evaluation_compute_in_bf16(tmp_path: Path) -> None:
    trainer = trainer_assets.make_trainer(tmp_path, bf16=True, steps=1)
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    layer = trainer.architecture.model.model.encoder.layers[0].fc1
    layer.register_forward_hook(lambda module, _, output: seen[module.training].add(output.dtype))
    trainer.train()
    trainer.evaluate()
    assert seen == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    assert {one.dtype for one in trainer.architecture.model.parameters()} == {torch.float32}


def test_products_are_left_to_short_clips_with_a_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    short = torch.zeros(1, 2, 5, 4, dtype=torch.bfloat16)
    assert attention._suits(short, short, {})
    assert not attention._suits(short.float(), short.float(), {})
    with torch.no_grad():
        assert not attention._suits(short, short, {})
    monkeypatch.setattr(attention, "MOST_SCORES", 49)
    assert not attention._suits(short, short, {})


def test_a_model_without_torchs_attention_keeps_its_own() -> None:
    eager = model()
    eager.set_attn_implementation("eager")
    assert not attention.use_products(eager) and eager.config._attn_implementation == "eager"
    assert not attention.use_products(torch.nn.Linear(2, 2))
