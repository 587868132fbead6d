"""The memory plan against what real steps of small models hold, and against the public sizes of large ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import e2e_tiny
import numpy as np
import pytest
import torch
import whisper_assets

from training.config.load import config_from, load_config
from training.data.sampler import FullContextBatch, Joining
from training.decoding.predict import longest_hypothesis
from training.engine import freezing as trainable
from training.engine.run import build_architecture, learning_part
from training.models.architecture import Architecture, BuildContext
from training.models.batch import model_inputs
from training.models.lookup import load
from training.planning import memory, worst_case
from training.planning.fake_step import FakeModel, NotCountable
from training.planning.texts import stand_in_texts

torch.set_num_threads(1)
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def tiny_whisper(**options: Any) -> Architecture:
    return whisper_assets.tiny(
        sizes={"d_model": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}, **options
    )


def tiny_e2e(**options: Any) -> Architecture:
    """With wav2vec2's own convolutions: what kernels use inside, which no plan sees, grows with their length."""
    convolutions = {
        "conv_dim": [32] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    }
    encoder = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, **convolutions}
    return e2e_tiny.tiny(encoder, **options)


BUNDLES = {
    "whisper": tiny_whisper,
    "whisper with ctc": lambda: tiny_whisper(ctc_weight=0.3),
    "e2e": tiny_e2e,
    "e2e with ctc": lambda: tiny_e2e(ctc_weight=0.3),
}


def batch_of(architecture: Architecture, rows: int = 3, seconds: float = 4.0) -> dict[str, Any]:
    return architecture.collate([worst_case.synthetic_features(architecture, seconds, 40)] * rows)


def fake_model_of(architecture: Architecture, **changes: Any) -> FakeModel:
    return FakeModel(
        architecture.model, **{"cuda": False, "precision": "fp32", "checkpointing": False, **changes}
    )


def size_of(batch: dict[str, Any]) -> int:
    """Bytes of the batch itself, which lies on the device too."""
    return sum(t.numel() * t.element_size() for t in model_inputs(batch).values() if torch.is_tensor(t))


def real_peak(architecture: Architecture, batch: dict[str, Any]) -> int:
    """The most bytes that torch's CPU allocator had given out at once during a real step."""
    from torch.profiler import ProfilerActivity, profile

    architecture.model.train()
    architecture.model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        architecture.model(**model_inputs(batch), num_items_in_batch=1).loss.backward()
    architecture.model.zero_grad(set_to_none=True)
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(events) if e.name() == "[memory]")
    live = peak = size_of(batch)
    for _, _, size in changes:
        live += size
        peak = max(peak, live)
    return peak


def really_saved(architecture: Architecture, batch: dict[str, Any]) -> int:
    """Bytes that autograd saves in a real forward pass, each storage once, without the weights; and the batch."""
    inputs = [t for t in model_inputs(batch).values() if torch.is_tensor(t)]
    left_out = {t.untyped_storage().data_ptr() for t in [*architecture.model.parameters(), *inputs]}
    storages: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            storages[storage.data_ptr()] = storage
        return tensor

    architecture.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = architecture.model(**model_inputs(batch), num_items_in_batch=1).loss
        saved = sum(storage.nbytes() for storage in storages.values())
    del loss
    return saved + size_of(batch)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_peak_of_a_step_is_that_of_the_real_one(name: str) -> None:
    architecture = BUNDLES[name]()
    batch = batch_of(architecture)
    planned = fake_model_of(architecture).step(batch, accumulated=False).peak
    assert planned == pytest.approx(real_peak(architecture, batch), rel=0.1)


@pytest.mark.parametrize("name", ["whisper", "e2e"])
def test_what_the_forward_pass_keeps_is_what_autograd_saves(name: str) -> None:
    architecture = BUNDLES[name]()
    batch = batch_of(architecture)
    kept = fake_model_of(architecture).step(batch, accumulated=False).kept
    assert kept == pytest.approx(really_saved(architecture, batch), rel=0.1)


def test_checkpointing_is_counted_as_it_is() -> None:
    architecture = tiny_whisper()
    batch = batch_of(architecture)
    planned = fake_model_of(architecture, checkpointing=True).step(batch, accumulated=False)
    plain = fake_model_of(architecture).step(batch, accumulated=False)
    architecture.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False}
    )
    assert planned.peak == pytest.approx(real_peak(architecture, batch), rel=0.1)
    assert planned.kept < 0.5 * plain.kept
    assert planned.flops > 1.2 * plain.flops


def test_a_frozen_encoder_keeps_no_activations() -> None:
    architecture = tiny_e2e()
    batch = batch_of(architecture)
    trained = fake_model_of(architecture).step(batch, accumulated=False)
    trainable.apply(architecture, freeze_encoder=True)
    frozen = fake_model_of(architecture).step(batch, accumulated=False)
    assert frozen.kept == pytest.approx(
        really_saved(architecture, batch), rel=0.15
    )  # of so little, outputs are a tenth
    assert frozen.kept < 0.3 * trained.kept


def test_rows_that_learn_alone_take_no_more_than_the_whole_matrix() -> None:
    """The last blocks and two rows of a vocabulary that is most of the model."""
    module = load("domain_whisper")
    sizes = {**whisper_assets.SIZES, "d_model": 64}
    chosen = module.Options(
        sizes=sizes, max_label_tokens=64, domain="normal", unfreeze={"encoder_blocks": 1, "decoder_blocks": 1}
    )
    architecture = module.build(chosen, BuildContext(texts=lambda: iter(whisper_assets.TEXTS)))
    architecture.model.resize_token_embeddings(20_000)
    batch = batch_of(architecture, seconds=1.0)
    trainable.apply(architecture, mode="blocks")
    planned = fake_model_of(architecture).step(batch, accumulated=False).peak
    assert planned == pytest.approx(real_peak(architecture, batch), rel=0.1)


def test_gradients_of_an_earlier_batch_are_there_while_accumulating() -> None:
    architecture = tiny_whisper()
    fake_model = fake_model_of(architecture)
    batch = batch_of(architecture)
    once, again = fake_model.step(batch, accumulated=False), fake_model.step(batch, accumulated=True)
    gradients = sum(4 * p.numel() for p in architecture.model.parameters() if p.requires_grad)
    assert again.parts["gradients"] == gradients
    assert once.peak < again.peak <= once.peak + gradients + 4096


def test_half_precision_copies_weights_and_halves_activations() -> None:
    architecture = tiny_whisper()
    batch = batch_of(architecture)
    single = fake_model_of(architecture, cuda=True).step(batch, accumulated=False)
    half = fake_model_of(architecture, cuda=True, precision="fp16").step(batch, accumulated=False)
    linear = sum(
        m.weight.numel()
        for m in architecture.model.modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv1d)
    )
    assert single.parts["half-precision weights"] == 0
    assert 0 < half.parts["half-precision weights"] <= 2 * linear + 65536
    assert 0.4 * single.kept < half.kept < 0.9 * single.kept


def test_a_gpu_keeps_dropout_masks_as_bytes_and_no_attention_scores() -> None:
    architecture = whisper_assets.tiny(sizes={"dropout": 0.1, "attention_dropout": 0.1})
    batch = batch_of(architecture, seconds=20.0)
    cpu, gpu = (
        fake_model_of(architecture, cuda=cuda).step(batch, accumulated=False) for cuda in (False, True)
    )
    heads, layers, frames, rows = 2, 2, batch["input_features"].shape[-1] // 2, 3
    scores = 4 * rows * heads * layers * frames**2
    assert cpu.peak == pytest.approx(real_peak(architecture, batch), rel=0.1)
    assert cpu.kept - gpu.kept > scores


def test_the_model_is_neither_moved_nor_changed() -> None:
    architecture = tiny_whisper()
    before = {name: parameter.clone() for name, parameter in architecture.model.named_parameters()}
    fake_model = fake_model_of(architecture)
    fake_model.step(batch_of(architecture), accumulated=True)
    assert all(torch.equal(p, before[name]) for name, p in architecture.model.named_parameters())
    assert all(p.grad is None for p in architecture.model.parameters())
    assert type(architecture.model.proj_out.weight) is torch.nn.Parameter
    fake = fake_model.model
    assert fake.proj_out.weight is fake.model.decoder.embed_tokens.weight
    assert [p.requires_grad for p in fake.parameters()] == [
        p.requires_grad for p in architecture.model.parameters()
    ]


def test_the_functions_that_stand_in_for_cuda_are_put_back() -> None:
    from training.models.common import losses

    before = (
        torch.nn.functional.dropout,
        torch.nn.functional.layer_norm,
        losses._product_dtype,
        losses.CHUNK_BYTES,
    )
    architecture = tiny_whisper()
    fake_model_of(architecture, cuda=True, precision="bf16").step(batch_of(architecture), accumulated=False)
    after = (
        torch.nn.functional.dropout,
        torch.nn.functional.layer_norm,
        losses._product_dtype,
        losses.CHUNK_BYTES,
    )
    assert all(one is other for one, other in zip(before, after, strict=True))


def test_a_model_that_needs_values_says_so() -> None:
    architecture = tiny_whisper()
    forward = architecture.model.model.encoder.layers[0].forward
    architecture.model.model.encoder.layers[0].forward = lambda hidden, *rest: (  # type: ignore[method-assign]
        forward(hidden, *rest) * float(hidden.detach().sum())
    )
    with pytest.raises(NotCountable, match="real data"):
        fake_model_of(architecture).step(batch_of(architecture), accumulated=False)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_plan_counts_the_parameters_of_the_model(name: str) -> None:
    architecture = BUNDLES[name]()
    config = tiny_config()
    model, _ = trainable.apply(architecture, freeze_encoder=True)
    plan = memory.make_plan(config, architecture, model, memory.Load(train=batch_of(architecture)))
    assert plan.parameters == sum(p.numel() for p in architecture.model.parameters())
    assert plan.trainable == sum(p.numel() for p in architecture.model.parameters() if p.requires_grad)
    assert plan.total == sum(plan.items.values()) == max(plan.moments.values())


def tiny_config(**profile: Any) -> Any:
    model = {"type": "whisper", "sizes": whisper_assets.SIZES}
    return config_from({"model": model, "profile": {"device": "cuda", "memory_gb": 4, **profile}})


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ("dev_whisper", {"": 37.76}),
        ("prod_whisper", {"": 763.86}),
        ("dev_domain_whisper", {"": 37.76}),
        ("prod_domain_whisper", {"": 1543.49}),
        ("dev_e2e", {"encoder": 94.37}),
        ("prod_e2e", {"encoder": 315.44}),
    ],
)
def test_parameters_of_the_public_models(config: str, millions: dict[str, float]) -> None:
    options = load_config(CONFIGS / f"{config}.yaml").model
    assert options is not None
    model = load(options.type).build(options, BuildContext(meta=True)).model  # type: ignore[attr-defined]
    for part, expected in millions.items():
        module = model.get_submodule(part)
        assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(expected, abs=0.01)


def test_optimiser_states_by_kind() -> None:
    model = torch.nn.Sequential(
        torch.nn.Embedding(100, 64), torch.nn.Linear(64, 128), torch.nn.Linear(128, 128)
    )
    model[2].requires_grad_(False)
    embedding, weight, bias = 6400, 8192, 128
    assert memory.optimiser_bytes(model, "adamw_torch_fused") == (8 * (embedding + weight + bias), 0)
    assert memory.optimiser_bytes(model, "adamw_torch")[1] == 4 * (embedding + weight + bias)
    assert memory.optimiser_bytes(model, "adamw_bnb_8bit") == (8 * embedding + 2 * weight + 8 * bias, 0)
    assert memory.optimiser_bytes(model, "sgd") == (0, 0)
    assert memory.optimiser_bytes(model, "adafactor")[0] == 4 * (100 + 64 + 128 + 64 + bias)


def test_adam_states_are_those_of_torch() -> None:
    model = torch.nn.Linear(64, 128)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(2, 64)).sum().backward()
    optimiser.step()
    states = [t for s in optimiser.state.values() for k, t in s.items() if k != "step"]
    real = sum(t.numel() * t.element_size() for t in states)
    assert memory.optimiser_bytes(model, "adamw_torch_fused")[0] == real


def test_the_budget_of_a_gpu_is_less_its_context() -> None:
    assert memory.budget(tiny_config(memory_gb=4)) == pytest.approx(3.3 * memory.GIB, rel=1e-6)
    assert memory.budget(tiny_config(device="cpu", memory_gb=4)) == 4 * memory.GIB


def test_the_heaviest_batch_is_one_that_the_sampler_draws() -> None:
    config = config_from(
        {
            "model": {"type": "whisper", "sizes": whisper_assets.SIZES},
            "training": {"max_batch_seconds": 60, "batch_size": 20},
        }
    )
    known = worst_case.assumed(config)
    sampler = worst_case.make_sampler(config, known.train)
    batches = sampler.batches()
    full = [rows for rows in batches if isinstance(rows, FullContextBatch)]
    assert worst_case.fullest(config, known) == (max(map(len, full)), float(known.train.max()))
    drawn = [(len(rows), float(known.train[rows].max())) for rows in batches if rows not in full]
    rows, seconds = worst_case.heaviest(config, known.train)
    assert rows * seconds == pytest.approx(max(n * s for n, s in drawn), rel=0.02)
    assert worst_case.heaviest(config, known.train, padded=True)[0] == max(n for n, _ in drawn)


def test_joined_clips_are_the_heaviest_batch_where_they_are_drawn() -> None:
    blocks = {
        "model": {"type": "ctc"},
        "training": {"max_batch_seconds": 40},
        "audio": {"max_length_seconds": 15},
    }
    config = config_from({**blocks, "augmentation": {"join": {"prob": 0.1, "most": 4}}})
    clips = np.full(100, 4.0)
    assert worst_case.heaviest(config_from(blocks), clips) == (10, 4.0)
    assert worst_case.heaviest(config, clips) == (4, pytest.approx(12.0 + 3 * 0.3)), (
        "three times three and one"
    )
    off = config_from({**blocks, "augmentation": {"enabled": False, "join": {"prob": 0.1}}})
    assert worst_case.heaviest(off, clips) == (10, 4.0)


def test_no_joined_batch_is_heavier_than_the_planned_one() -> None:
    """Also where one long clip of a bucket keeps its own batches from being joined."""
    join = {"prob": 1.0, "most": 3, "pause": 0.0}
    config = config_from(
        {
            "model": {"type": "ctc"},
            "training": {"max_batch_seconds": 60},
            "audio": {"max_length_seconds": 15},
            "augmentation": {"join": join},
        }
    )
    clips = np.concatenate([np.linspace(1.0, 7.4, 200), [7.6, 7.7, 5.1]])
    sampler = worst_case.make_sampler(config, clips)
    joining = Joining(1.0, 3, 15.0, 0)
    drawn = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for batch in sampler.batches():
            groups = joining.groups(batch, clips, epoch)
            drawn.append(
                (len(groups), max(clips[list(g) if isinstance(g, tuple) else [g]].sum() for g in groups))
            )
    rows, seconds = worst_case.heaviest(config, clips)
    assert rows * seconds >= max(n * s for n, s in drawn) - 1e-6


def test_batches_padded_to_30_seconds_count_as_such() -> None:
    architecture = tiny_whisper(full_context_share=0.02)
    config = tiny_config()
    known = worst_case.Known(train=worst_case.assumed(config).train / 10, dev=None)
    assert worst_case.load(config, architecture, known).train["input_features"].shape[-1] == 3000
    architecture = tiny_whisper(full_context_share=0.0)
    assert worst_case.load(config, architecture, known).train["input_features"].shape[-1] < 500


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_full_batches_are_of_training_and_evaluation_stays_trimmed(share: float) -> None:
    architecture, config = tiny_whisper(encoder_context="trimmed", full_context_share=share), tiny_config()
    short = worst_case.assumed(config).train / 10
    made = worst_case.load(config, architecture, worst_case.Known(train=short, dev=short))
    assert (made.train["input_features"].shape[-1] == 3000) == bool(share)
    assert made.evaluation is not None and made.evaluation["input_features"].shape[-1] < 500


@pytest.mark.parametrize("make", [tiny_whisper, tiny_e2e])
def test_generation_is_planned_with_its_beams_and_for_as_many_tokens_as_it_may_write(make: Any) -> None:
    architecture, config = make(), tiny_config()
    known = worst_case.assumed(config)
    made = worst_case.load(config, architecture, known)
    assert made.evaluation is not None and made.beams == 1
    longest = worst_case.evaluation_batch(config, known.train)[1]
    decoder = getattr(architecture.model.config, "decoder", architecture.model.config)
    positions = getattr(decoder, "max_target_positions", None) or decoder.max_position_embeddings
    assert made.new_tokens == min(positions - made.evaluation["prompt_length"], longest_hypothesis(longest))
    fake_model = fake_model_of(architecture)
    states = fake_model.forward(made.evaluation).states
    sizes = architecture.decoder_sizes
    one = memory.generation_bytes(fake_model, made, states, sizes)
    assert memory.generation_bytes(fake_model, replace(made, beams=4), states, sizes) == 4 * one
    shared = sizes._replace(kept=sizes.kept // 2)  # grouped queries share keys and values
    assert memory.generation_bytes(fake_model, made, states, shared) < one


def test_the_plan_the_trial_and_the_training_take_one_label_smoothing() -> None:
    model = {"type": "whisper", "sizes": whisper_assets.SIZES}
    config = config_from({"model": model, "training": {"label_smoothing_factor": 0.2}})
    architecture = build_architecture(config, BuildContext(meta=True, texts=lambda: stand_in_texts(config)))
    learning, _ = learning_part(config, architecture)
    fake = FakeModel(learning, cuda=False, precision="fp32", checkpointing=False)
    assert learning.label_smoothing == fake.model.label_smoothing == 0.2
