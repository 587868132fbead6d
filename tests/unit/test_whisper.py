"""Whisper: labels, context, losses and saved folders, against stock transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.generation import GenerationMixin
from whisper_assets import TRANSCRIPT, TRANSLATION, example, features, noise, tiny

from training.data.batch_policy import FULL_CONTEXT
from training.models.batch import model_inputs
from training.models.common.log_mels import count_frames, log_mel


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return tiny(encoder_context="full")


@pytest.fixture(scope="module")
def trimmed():
    torch.manual_seed(0)
    return tiny(encoder_context="trimmed", full_context_share=0.0)


def ids_of(architecture, *tokens):
    return architecture.processor.tokenizer.convert_tokens_to_ids(list(tokens))


def stock_of(architecture):
    model = WhisperForConditionalGeneration(architecture.model.config)
    model.load_state_dict(architecture.model.state_dict())
    return model


# Trap 1.
def test_eos_is_learnt_although_it_is_the_padding_token(full):
    batch = full.collate(features(full))
    eos = full.processor.tokenizer.eos_token_id
    assert eos == full.processor.tokenizer.pad_token_id
    assert ((batch["labels"] == eos).sum(dim=-1) == 1).all()


def test_traps_02_03_04_whole_label_tensors(full):
    tokenizer = full.processor.tokenizer
    short = full.encode(example("a", 1.0, transcribe="Xin chào", translate="Xin chào các bạn"), noise(1.0))
    batch = full.collate([short])
    start, vi, transcribe, translate, plain, eos = ids_of(
        full,
        "<|startoftranscript|>",
        "<|vi|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
        "<|endoftext|>",
    )
    first = tokenizer(" Xin chào", add_special_tokens=False).input_ids
    second = tokenizer(" Xin chào các bạn", add_special_tokens=False).input_ids
    fill = len(second) - len(first)
    assert batch["decoder_input_ids"].tolist() == [
        [
            [start, vi, transcribe, plain, *first, *[eos] * fill],
            [start, vi, translate, plain, *second],
        ]
    ]
    assert batch["labels"].tolist() == [
        [
            [-100, -100, -100, *first, eos, *[-100] * fill],
            [-100, -100, -100, *second, eos],
        ]
    ]
    assert batch["prompt_length"] == 4


# Trap 3.
def test_the_prompt_that_generate_is_given_is_the_trained_one(full, monkeypatch):
    batch = full.collate(features(full))
    seen = {}
    monkeypatch.setattr(
        full.model,
        "generate_tasks",
        lambda mels, prompts, **kwargs: (
            seen.update(prompts=prompts) or torch.zeros(2, 2, 1, dtype=torch.long)
        ),
    )
    full.generate(batch)
    assert torch.equal(seen["prompts"], batch["decoder_input_ids"][:, :, :4])
    assert not torch.equal(seen["prompts"][:, 0], seen["prompts"][:, 1])


def test_a_language_of_its_own_for_each_row(full):
    rows = [example("a", 1.0, transcribe="x"), example("b", 1.0, transcribe="x")]
    rows[1] = type(rows[1])(**{**{k: getattr(rows[1], k) for k in rows[1].__slots__}, "language": "en"})
    batch = full.collate([full.encode(row, noise(1.0)) for row in rows])
    assert batch["decoder_input_ids"][:, 0, 1].tolist() == ids_of(full, "<|vi|>", "<|en|>")


def test_a_language_without_a_token_is_refused(full):
    row = example("a", 1.0, transcribe="x")
    row = type(row)(**{**{k: getattr(row, k) for k in row.__slots__}, "language": "xyz"})
    with pytest.raises(ValueError, match="'xyz' has no token"):
        full.encode(row, noise(1.0))


def test_labels_are_made_without_a_table_of_all_added_tokens(full, monkeypatch):
    """Whisper has 1,600 of them: a table at each prompt took longer than the log-mel."""
    tokenizer = full.processor.tokenizer
    monkeypatch.setattr(type(tokenizer), "get_added_vocab", lambda self: pytest.fail("made anew per prompt"))
    full.encode.check(example("a", 1.0, transcribe="Xin chào", translate="x"), 1.0)


# Trap 6.
def test_too_many_label_tokens_are_refused_before_training(full):
    with pytest.raises(ValueError, match="label tokens, at most 64"):
        full.encode(example("a", 1.0, transcribe="chào " * 80), noise(1.0))


# Trap 11.
def test_a_clip_over_30_seconds_is_refused_not_cut(full):
    with pytest.raises(ValueError, match=r"30\.500 s of audio, at most 30 s"):
        full.encode(example("a", 30.5, transcribe="x"), noise(30.5))


def test_the_check_before_training_refuses_what_encoding_refuses_and_makes_no_log_mel(full, monkeypatch):
    silent = lambda *args: pytest.fail("the check needs no sound")  # noqa: E731
    monkeypatch.setattr("training.models.whisper.collator.log_mel", silent)
    full.encode.check(example("a", 1.0, transcribe="x"), 1.0)
    with pytest.raises(ValueError, match="label tokens, at most 64"):
        full.encode.check(example("a", 1.0, transcribe="chào " * 80), 1.0)
    with pytest.raises(ValueError, match=r"30\.500 s of audio, at most 30 s"):
        full.encode.check(example("a", 30.5, transcribe="x"), 30.5)


@pytest.mark.parametrize("seconds", [0.1, 0.95, 1.001, 2.2, 29.99, 30.0])
def test_the_frames_that_the_check_counts_are_those_of_the_log_mel(full, seconds):
    extractor = full.processor.feature_extractor
    assert count_frames(extractor, len(noise(seconds))) == log_mel(extractor, noise(seconds)).shape[-1]


def test_log_mels_are_the_stock_ones_cut_after_the_clip(full):
    waveform = noise(2.3)
    stock = full.processor.feature_extractor(waveform, sampling_rate=16000, return_tensors="np")[
        "input_features"
    ][0]
    batch = full.collate([full.encode(example("a", 2.3, transcribe="x"), waveform)])
    np.testing.assert_allclose(batch["input_features"][0].numpy(), stock, atol=1e-6)


def test_trimmed_context_is_the_longest_clip_and_the_margin(trimmed):
    batch = trimmed.collate(features(trimmed, (1.0, 2.5)))
    assert batch["input_features"].shape == (
        2,
        80,
        354,
    )  # 2.5 s and four frames of silence, one second of margin


def test_a_batch_that_the_sampler_marks_has_30_seconds():
    architecture = tiny(full_context_share=0.25)
    rows = features(architecture, (1.0,))
    assert architecture.train_collate.frames(rows) < 300
    assert architecture.train_collate.frames([{**rows[0], FULL_CONTEXT: True}]) == 3000


# Trap 23.
def test_full_length_is_exact_and_shorter_is_the_same_positions(full):
    stock = stock_of(full).eval()
    full.model.eval()
    mels = full.collate(features(full))["input_features"]
    with torch.no_grad():
        assert torch.equal(full.model.encode(mels), stock.model.encoder(mels).last_hidden_state)
        short = full.model.encode(mels[:, :, :400])
    encoder = stock.model.encoder
    encoder.config.max_source_positions = 200
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:200])
    with torch.no_grad():
        torch.testing.assert_close(short, encoder(mels[:, :, :400]).last_hidden_state)
    encoder.config.max_source_positions = 1500


def test_loss_and_gradients_equal_stock_on_doubled_rows(full):
    batch = full.collate(features(full))
    full.model.train()
    full.model.zero_grad()
    ours = full.model(**model_inputs(batch)).loss
    ours.backward()
    stock = stock_of(full).train()
    theirs = stock(
        input_features=batch["input_features"].repeat_interleave(2, dim=0),
        decoder_input_ids=batch["decoder_input_ids"].flatten(0, 1),
        labels=batch["labels"].flatten(0, 1),
    ).loss
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    expected = {name: p.grad for name, p in stock.named_parameters() if p.grad is not None}
    for name, parameter in full.model.named_parameters():
        if name in expected:
            scale = expected[name].abs().max().clamp(min=1e-6)
            assert (parameter.grad - expected[name]).abs().max() <= 1e-5 * scale, name


# Trap 27.
def test_the_encoder_runs_once_for_both_tasks(full, monkeypatch):
    calls = []
    encode = type(full.model).encode
    monkeypatch.setattr(
        type(full.model), "encode", lambda self, mels: calls.append(len(mels)) or encode(self, mels)
    )
    batch = full.collate(features(full))
    full.model(**model_inputs(batch))
    full.generate(batch, max_new_tokens=2)
    assert calls == [2, 2]


@pytest.mark.parametrize("beams", [1, 3])
def test_both_tasks_say_what_stock_says_on_doubled_rows(full, beams):
    batch = full.collate(features(full))
    prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
    full.model.eval()
    ours = full.model.generate_tasks(
        batch["input_features"], prompts, num_beams=beams, max_new_tokens=12, do_sample=False
    )
    stock = stock_of(full).eval()
    stock.generation_config = full.model.generation_config
    mels = batch["input_features"].repeat_interleave(2, dim=0)
    theirs = GenerationMixin.generate(
        stock,
        decoder_input_ids=prompts.flatten(0, 1),
        encoder_outputs=stock.model.encoder(mels),
        max_length=None,
        max_new_tokens=12,
        num_beams=beams,
        do_sample=False,
    )
    assert torch.equal(ours.flatten(0, 1), theirs[:, prompts.shape[-1] :])


def test_keys_of_a_clip_are_computed_once_for_both_tasks(full):
    seen = []
    attention = full.model.model.decoder.layers[0].encoder_attn
    hook = attention.k_proj.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    batch = full.collate(features(full))
    full.model(**model_inputs(batch))
    full.generate(batch, max_new_tokens=3)
    hook.remove()
    assert seen == [2, 2]


def test_decoder_rows_that_do_not_divide_among_the_clips_are_refused(full):
    decoder = full.model.model.decoder
    states = torch.zeros(2, 4, decoder.config.d_model)
    with pytest.raises(RuntimeError, match="unflatten"):  # 3 rows of 4 tokens would fit 2 clips of 6
        decoder(input_ids=torch.zeros(3, 4, dtype=torch.long), encoder_hidden_states=states, use_cache=False)


def test_a_row_without_a_translation_teaches_none_and_can_be_translated(full):
    row = full.encode(example("a", 1.0, transcribe="Xin chào"), noise(1.0))
    batch = full.collate([row])
    assert (batch["labels"][0, 1] == -100).all()
    assert batch["decoder_input_ids"][0, 1, :4].tolist() == ids_of(
        full, "<|startoftranscript|>", "<|vi|>", "<|translate|>", "<|notimestamps|>"
    )
    assert full.generate(batch, max_new_tokens=3)["translate"].shape == (1, 3)


def test_saved_folder_is_a_stock_whisper(full, tmp_path):
    full.model.eval()
    full.model.save_pretrained(tmp_path)
    full.processor.save_pretrained(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    stock = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    processor = WhisperProcessor.from_pretrained(tmp_path)
    assert stock.config.architectures == ["WhisperForConditionalGeneration"]
    assert stock.config.polyvox["target_language"] == "vi"
    waveform = noise(2.0)
    mels = processor(waveform, sampling_rate=16000, return_tensors="pt").input_features
    theirs = stock.generate(mels, language="vi", task="transcribe", max_new_tokens=12, do_sample=False)[
        0
    ].tolist()
    batch = full.collate([full.encode(example("a", 2.0), waveform)])
    ours = full.generate(batch, max_new_tokens=12, do_sample=False)["transcribe"][0].tolist()
    assert ours[: len(theirs)] == theirs
    texts = [TRANSCRIPT, TRANSLATION]
    assert processor.tokenizer(texts).input_ids == full.processor.tokenizer(texts).input_ids


def test_tied_weights_stay_tied_through_saving(full, tmp_path):
    full.model.save_pretrained(tmp_path)
    again = type(full.model).from_pretrained(tmp_path)
    assert again.proj_out.weight.data_ptr() == again.model.decoder.embed_tokens.weight.data_ptr()


def test_overfits_a_handful_of_clips_and_says_them_back():
    torch.manual_seed(0)
    architecture = tiny(encoder_context="trimmed", full_context_share=0.0, sizes={"d_model": 64})
    batch = architecture.collate(features(architecture, (1.0, 1.6)))
    optimizer = torch.optim.AdamW(architecture.model.parameters(), lr=3e-3)
    architecture.model.train()
    for _ in range(60):
        loss = architecture.model(**model_inputs(batch)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    architecture.model.eval()
    said = architecture.generate(batch, max_new_tokens=40, do_sample=False)
    assert {architecture.text(row) for row in said["transcribe"].tolist()} == {TRANSCRIPT}
    assert {architecture.text(row) for row in said["translate"].tolist()} == {TRANSLATION}
