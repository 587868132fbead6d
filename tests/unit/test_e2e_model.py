from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_tiny import RATE, TRANSCRIPTS, TRANSLATIONS, batch, clip, example, inputs, tiny
from transformers import AutoFeatureExtractor, AutoProcessor, MBart50Tokenizer, SpeechEncoderDecoderModel

from training.models.architecture import Architecture
from training.models.common.ctc import ctc_loss
from training.models.common.targets import IGNORED

SECONDS = (1.1, 1.3, 1.5, 1.2)


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    made = tiny()
    made.model.eval()
    return made


@pytest.fixture(scope="module")
def trained() -> Architecture:
    """A model that knows four clips by heart, so that what it generates depends on what it hears."""
    architecture = tiny()
    made = inputs(batch(architecture, SECONDS))
    optimiser = torch.optim.AdamW(architecture.model.parameters(), lr=3e-3)
    architecture.model.train()
    for _ in range(250):
        loss = architecture.model(**made).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(architecture.model.parameters(), 1.0)
        optimiser.step()
    architecture.model.eval()
    return architecture


def stock_of(architecture: Architecture, folder: Path) -> SpeechEncoderDecoderModel:
    architecture.model.save_pretrained(folder)
    architecture.processor.save_pretrained(folder)
    return SpeechEncoderDecoderModel.from_pretrained(folder)


def grads(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_equal_the_stock_model_on_doubled_rows(tmp_path: Path) -> None:
    architecture = tiny()
    stock = stock_of(architecture, tmp_path).train()
    made = inputs(batch(architecture))
    loss = architecture.model.train()(**made).loss
    loss.backward()
    doubled = stock(
        input_values=made["input_values"].repeat_interleave(2, dim=0),
        attention_mask=made["attention_mask"].repeat_interleave(2, dim=0),
        decoder_input_ids=made["decoder_input_ids"].flatten(0, 1),
        labels=made["labels"].flatten(0, 1),
    ).loss
    doubled.backward()
    torch.testing.assert_close(loss, doubled, rtol=1e-5, atol=0)
    ours, theirs = grads(architecture.model), grads(stock)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        error = (ours[name] - grad).norm() / grad.norm().clamp(min=1e-4)
        assert error < 1e-5, f"{name}: {error:.1e}"


# Trap 7.
def test_one_batch_of_four_equals_four_of_one() -> None:
    architecture = tiny(ctc_weight=0.5)
    rows = [architecture.encode(example(i), clip(i, 1.0 + 0.2 * i)) for i in range(4)]
    whole = inputs(architecture.collate(rows))
    items = (whole["labels"] != IGNORED).sum()
    loss = architecture.model.train()(**whole).loss
    loss.backward()
    at_once = grads(architecture.model)
    architecture.model.zero_grad()
    losses = [
        architecture.model(**inputs(architecture.collate([row])), num_items_in_batch=items).loss
        for row in rows
    ]
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(torch.stack(losses).sum(), loss, rtol=1e-5, atol=0)
    for name, grad in grads(architecture.model).items():
        torch.testing.assert_close(grad, at_once[name], rtol=1e-3, atol=1e-6)


# Trap 7.
def test_the_trainer_is_told_how_the_loss_is_normalised() -> None:
    assert tiny().model.accepts_loss_kwargs is True


def test_a_clip_has_the_same_loss_alone_and_beside_a_longer_one(architecture: Architecture) -> None:
    short = architecture.encode(example(0), clip(0, 1.0))
    long = architecture.encode(example(1), clip(1, 2.5))
    alone = inputs(architecture.collate([short]))
    both = inputs(architecture.collate([short, long]))
    both["labels"][1] = IGNORED
    torch.testing.assert_close(
        architecture.model(**alone).loss, architecture.model(**both).loss, rtol=1e-5, atol=0
    )


# Trap 30.
def test_group_norm_encoders_see_no_mask_and_their_padding_counts() -> None:
    """What wav2vec2-base was trained on: zeros without a mask, so a clip's states do depend on its batch."""
    architecture = tiny({"feat_extract_norm": "group"})
    made = inputs(batch(architecture, (1.0, 2.0)))
    seen: list[Any] = []
    architecture.model.encoder.register_forward_pre_hook(
        lambda *a: seen.append(a[2]["attention_mask"]), with_kwargs=True
    )
    states, mask = architecture.model.eval().encode(made["input_values"], made["attention_mask"])
    alone, _ = architecture.model.encode(made["input_values"][:1, :RATE])
    assert seen[0] is None
    assert not torch.allclose(states[0, : alone.shape[1]], alone[0], atol=1e-3)
    assert mask.sum(dim=1).tolist() == [alone.shape[1], states.shape[1]]


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_cross_attention_never_looks_at_padding(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = tiny({"feat_extract_norm": norm})
    made = inputs(batch(architecture, (1.0, 2.0)))
    encode = architecture.model.eval().encode
    clean = architecture.model(**made).loss

    def with_noise(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        states, mask = encode(*args)
        return torch.where(mask[..., None], states, torch.full_like(states, 50.0)), mask

    monkeypatch.setattr(architecture.model, "encode", with_noise)
    torch.testing.assert_close(architecture.model(**made).loss, clean, rtol=1e-6, atol=0)


# Trap 27.
def test_the_encoder_runs_once_for_both_tasks(architecture: Architecture) -> None:
    calls: list[int] = []
    handle = architecture.model.encoder.register_forward_hook(lambda *a: calls.append(1))
    made = batch(architecture)
    architecture.model(**inputs(made))
    assert len(calls) == 1
    architecture.generate(made, max_new_tokens=4)
    handle.remove()
    assert len(calls) == 2


def test_keys_of_a_clip_are_computed_once_for_both_tasks(architecture: Architecture) -> None:
    seen: list[int] = []
    attention = architecture.model.decoder.base_model.decoder.layers[0].encoder_attn
    hook = attention.k_proj.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    made = batch(architecture)
    architecture.model(**inputs(made))
    hook.remove()
    assert seen == [len(made["labels"])]


# Trap 26.
def test_there_is_one_projection_and_it_learns() -> None:
    architecture = tiny()
    architecture.model(**inputs(batch(architecture))).loss.backward()
    linear = [module for module in architecture.model.modules() if isinstance(module, torch.nn.Linear)]
    assert [m for m in linear if m.weight.shape == (24, 32)] == [architecture.model.enc_to_dec_proj]
    assert architecture.model.enc_to_dec_proj.weight.grad.any()


# Trap 5.
def test_embeddings_are_tied_before_and_after_saving(tmp_path: Path) -> None:
    architecture = tiny()
    stock = stock_of(architecture, tmp_path)
    for model in (architecture.model, stock):
        assert model.decoder.lm_head.weight is model.decoder.model.decoder.embed_tokens.weight


def test_stock_transformers_loads_the_folder_and_computes_the_same(tmp_path: Path) -> None:
    architecture = tiny(ctc_weight=0.3)
    architecture.model.eval()
    stock = stock_of(architecture, tmp_path).eval()
    assert stock.config.architectures == ["SpeechEncoderDecoderModel"]
    assert not hasattr(stock, "ctc_head")
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    made = inputs(batch(architecture))
    call = {
        "input_values": made["input_values"],
        "attention_mask": made["attention_mask"],
        "decoder_input_ids": made["decoder_input_ids"][:, 0],
    }
    torch.testing.assert_close(architecture.model(**call).logits, stock(**call).logits)


def test_stock_processors_load_from_the_folder(architecture: Architecture, tmp_path: Path) -> None:
    architecture.processor.save_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert extractor.return_attention_mask is True
    assert type(processor.tokenizer) is MBart50Tokenizer
    values = extractor(clip(), sampling_rate=RATE, return_tensors="np").input_values[0]
    np.testing.assert_array_equal(values, architecture.encode(example(), clip())["input_values"])


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_equals_stock_generation_one_by_one(
    beams: int, trained: Architecture, tmp_path: Path
) -> None:
    architecture = trained
    stock = stock_of(architecture, tmp_path).eval()
    made = batch(architecture, SECONDS)
    settings = {"max_new_tokens": 40, "num_beams": beams}
    ours = architecture.generate(made, **settings)
    prompts = made["decoder_input_ids"][:, :, : made["prompt_length"]]
    for i, samples in enumerate(made["attention_mask"].sum(dim=1).tolist()):
        for j, task in enumerate(architecture.tasks):
            alone = stock.generate(
                input_values=made["input_values"][i : i + 1, :samples],
                attention_mask=made["attention_mask"][i : i + 1, :samples],
                decoder_input_ids=prompts[i, j : j + 1],
                **settings,
            )[0, made["prompt_length"] :]
            assert architecture.text(ours[task][i].tolist()) == architecture.text(alone.tolist())
            assert ours[task][i, : len(alone)].tolist() == alone.tolist()


def test_generation_takes_the_states_of_a_forward_pass(architecture: Architecture) -> None:
    made = batch(architecture)
    fresh = architecture.generate(made, max_new_tokens=6)
    with torch.no_grad():
        states = architecture.model(**inputs(made)).encoder_last_hidden_state
    again = architecture.generate(made, states=states, max_new_tokens=6)
    assert all(torch.equal(fresh[task], again[task]) for task in architecture.tasks)


def test_decoding_survives_ids_beyond_the_vocabulary(architecture: Architecture) -> None:
    ids = architecture.encode(example(1), clip())["labels"]["transcribe"]
    assert architecture.text([*ids, 1, 1, 999_999]) == TRANSCRIPTS[1]


def test_a_frozen_feature_encoder_keeps_no_graph() -> None:
    architecture = tiny()
    cnn = architecture.model.encoder.feature_extractor
    cnn.requires_grad_(False)
    outputs: list[torch.Tensor] = []
    cnn.register_forward_hook(lambda module, args, output: outputs.append(output))
    architecture.model.train()(**inputs(batch(architecture))).loss.backward()
    assert not outputs[0].requires_grad
    cnn.requires_grad_(True)
    architecture.model(**inputs(batch(architecture)))
    assert outputs[1].requires_grad


def test_gradient_checkpointing_changes_nothing() -> None:
    architecture = tiny()
    made = inputs(batch(architecture))
    architecture.model.train()(**made).loss.backward()
    plain = grads(architecture.model)
    architecture.model.zero_grad()
    architecture.model.gradient_checkpointing_enable({"use_reentrant": False})
    architecture.model(**made).loss.backward()
    for name, grad in grads(architecture.model).items():
        torch.testing.assert_close(grad, plain[name])


def test_spec_augment_masks_in_training_only_and_bears_short_clips() -> None:
    architecture = tiny({"mask_time_prob": 0.5, "mask_time_length": 30})
    made = inputs(batch(architecture, (0.3,)))
    np.random.seed(0)
    training = {architecture.model.train()(**made).loss.item() for _ in range(3)}
    assert np.isfinite(list(training)).all()
    assert len({architecture.model.eval()(**made).loss.item() for _ in range(2)}) == 1


def test_the_ctc_loss_is_added_with_its_weight_and_padding_left_out() -> None:
    architecture = tiny(ctc_weight=0.3)
    architecture.model.eval()
    made = batch(architecture)
    with_ctc = architecture.model(**inputs(made)).loss
    without = architecture.model(**{k: v for k, v in inputs(made).items() if k != "ctc_labels"}).loss
    states, mask = architecture.model.encode(made["input_values"], made["attention_mask"])
    ctc = ctc_loss(architecture.model.ctc_head(states), mask.sum(dim=1), made["ctc_labels"])
    supervised = (made["labels"] != IGNORED).sum()
    torch.testing.assert_close(with_ctc, without + 0.3 * ctc / supervised)


def test_label_smoothing_reaches_the_loss() -> None:
    architecture = tiny()
    made = inputs(batch(architecture))
    plain = architecture.model.eval()(**made).loss
    architecture.model.label_smoothing = 0.1
    assert architecture.model(**made).loss != plain


def test_rows_without_a_translation_add_nothing(architecture: Architecture) -> None:
    partial = example(1, texts={"transcribe": TRANSCRIPTS[1]})
    made = architecture.collate(
        [architecture.encode(example(0), clip(0)), architecture.encode(partial, clip(1))]
    )
    only = {**inputs(made), "labels": made["labels"].clone()}
    only["labels"][:, 0] = IGNORED
    first = inputs(
        architecture.collate([architecture.encode(example(0, texts={"translate": TRANSLATIONS[0]}), clip(0))])
    )
    torch.testing.assert_close(
        architecture.model(**only).loss, architecture.model(**first).loss, rtol=1e-5, atol=0
    )


def test_it_learns_both_tasks_of_four_clips(trained: Architecture) -> None:
    made = batch(trained, SECONDS)
    assert trained.model(**inputs(made)).loss < 0.05
    spoken = trained.generate(made, max_new_tokens=40)
    assert [trained.text(row) for row in spoken["transcribe"].tolist()] == list(TRANSCRIPTS)
    assert [trained.text(row) for row in spoken["translate"].tolist()] == list(TRANSLATIONS)
