"""Whisper encoder and language model: whole batches, the prompt, the losses, what learns in which phase, the folder."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import pytest
import torch
import voxlm_assets as assets
import whisper_assets
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    GraniteConfig,
    WhisperForConditionalGeneration,
)

from training.base.errors import UserError
from training.decoding.loading import load_trained
from training.engine import freezing as trainable
from training.engine.freezing import LoraDefaults
from training.models.batch import model_inputs
from training.models.lookup import options_class
from training.models.voxlm.collator import word_of_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("voxlm")
    assets.parts(found)
    return found


@pytest.fixture(scope="module")
def architecture(folder):
    return assets.tiny(folder)


@pytest.fixture(scope="module")
def phase1(folder, architecture):
    return assets.saved(architecture, folder / "phase1")


@pytest.fixture(scope="module")
def aligned(folder, phase1):
    return assets.tiny(folder, name=str(phase1), phase=2)


def test_traps_01_and_04_the_whole_batch(architecture):
    rows = assets.features(architecture)
    batch = architecture.collate(rows)
    tokenizer = architecture.processor.tokenizer
    text = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    # 1 s and 2.5 s: 104 and 254 log-mel frames, 52 and 127 encoder frames, 13 and 32 groups of four.
    assert text == [
        f"<|im_start|>user\n{'<|audio|>' * groups}Transcribe the speech.<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>"
        for groups, said in ((13, assets.TEXTS[0]), (32, assets.TEXTS[1]))
    ]
    for i, said in enumerate(assets.TEXTS[:2]):
        supervised = batch["labels"][i, 0] != -100
        assert tokenizer.decode(batch["labels"][i, 0][supervised]) == f"{said}<|im_end|>"
        assert torch.equal(batch["labels"][i, 0][supervised], batch["input_ids"][i][supervised])
        assert int(supervised.nonzero()[0]) == int(batch["prompt_lengths"][i])  # the first word is taught
        padding = batch["attention_mask"][i] == 0
        assert (batch["labels"][i, 0][padding] == -100).all()
    assert batch["prompt_length"] == int(batch["prompt_lengths"].max())
    assert batch["frames"].tolist() == [104, 254]


# Trap 1.
def test_end_is_taught_where_it_is_the_padding_too(tmp_path, folder):
    shutil.copytree(folder / "llm", tmp_path / "llm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "llm")
    architecture = assets.tiny(folder, llm=str(tmp_path / "llm"))
    assert architecture.collate.pad_id == architecture.encode.end
    labels = architecture.collate(assets.features(architecture))["labels"][:, 0]
    assert [(row == architecture.encode.end).sum().item() for row in labels] == [1, 1]


# Trap 4.
def test_the_loss_is_that_of_the_response_alone_first_token_and_end_included(architecture):
    batch = architecture.collate(assets.features(architecture))
    model = architecture.model.eval()
    with torch.no_grad():
        loss = model(**model_inputs(batch)).loss
        logits = model(
            input_ids=batch["input_ids"],
            input_features=batch["input_features"],
            frames=batch["frames"],
            attention_mask=batch["attention_mask"],
        ).logits
    targets = batch["labels"][:, 0, 1:]
    plain = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100
    )
    torch.testing.assert_close(loss, plain)


# Trap 3.
def test_generation_goes_on_from_the_prompt_of_training(architecture):
    """Left padded, in a batch, over the cache: the tokens that the unpadded row alone foretells one by one."""
    rows = assets.features(architecture)
    model = architecture.model.eval()
    together = architecture.generate(architecture.collate(rows), max_new_tokens=6, do_sample=False)[
        "transcribe"
    ]
    for i, row in enumerate(rows):
        batch = architecture.collate([row])
        # The context of the batch decides what the encoder hears behind a clip: the same for both.
        sound = architecture.collate(rows)["input_features"][i : i + 1]
        ids = batch["input_ids"][:, : batch["prompt_length"]]
        for token in together[i].tolist():
            with torch.no_grad():
                logits = model(input_ids=ids, input_features=sound, frames=batch["frames"]).logits[0, -1]
            assert int(logits.argmax()) == token
            if token == architecture.encode.end:
                break
            ids = torch.cat((ids, torch.tensor([[token]])), dim=1)


def test_states_that_are_known_are_not_computed_again(architecture, monkeypatch):
    batch = architecture.collate(assets.features(architecture))
    model = architecture.model.eval()
    fresh = architecture.generate(batch, max_new_tokens=4, do_sample=False)["transcribe"]
    states = model(**model_inputs(batch)).encoder_last_hidden_state
    monkeypatch.setattr(model, "encode", lambda features: pytest.fail("encoded twice"))
    again = architecture.generate(batch, states=states, max_new_tokens=4, do_sample=False, num_beams=1)
    assert torch.equal(again["transcribe"], fresh)
    architecture.generate(batch, states=states, max_new_tokens=4, do_sample=False, num_beams=3)


def test_sound_and_placeholders_must_agree(architecture):
    batch = architecture.collate(assets.features(architecture))
    with pytest.raises(ValueError, match=r"audio tokens in the rows: \[13, 32\]; groups .*: \[12, 32\]"):
        architecture.model(**model_inputs({**batch, "frames": batch["frames"] - torch.tensor([8, 0])}))


def test_what_lies_behind_a_clip_does_not_reach_the_language_model(architecture):
    batch = architecture.collate(assets.features(architecture))
    states = architecture.model.encode(batch["input_features"])
    other = states.clone()
    other[0, 52:] = 7.0  # 104 log-mel frames
    for a, b in zip(
        *(architecture.model.project(s, batch["frames"])[0, :13] for s in (states, other)), strict=True
    ):
        assert torch.equal(a, b)


# Trap 5.
def test_no_matrix_changes_its_size_and_ties_hold(folder, architecture):
    llm = architecture.model.language_model
    rows = llm.get_input_embeddings().weight
    assert len(rows) == llm.config.vocab_size <= architecture.model.config.audio_token_id
    assert llm.get_output_embeddings().weight is rows
    model, _ = trainable.apply(assets.tiny(folder), mode="lora", lora=LoraDefaults(r=2))
    inner = model.get_base_model().language_model
    assert inner.get_output_embeddings().weight is inner.get_input_embeddings().weight


# Trap 7.
def test_one_batch_of_four_is_four_of_one(architecture):
    rows = assets.features(architecture, (1.0, 1.0, 1.0, 1.0))
    model = architecture.model.eval()
    whole = architecture.collate(rows)
    items = (whole["labels"] != -100).sum()
    parts = [
        model(**model_inputs(architecture.collate([row])), num_items_in_batch=items).loss for row in rows
    ]
    torch.testing.assert_close(sum(parts), model(**model_inputs(whole)).loss)


def test_the_parts_keep_their_weights(folder, architecture):
    llm = AutoModelForCausalLM.from_pretrained(folder / "llm").state_dict()
    for name, value in architecture.model.language_model.state_dict().items():
        assert torch.equal(value, llm[name]), name
    encoder = WhisperForConditionalGeneration.from_pretrained(folder / "whisper").model.encoder.state_dict()
    for name, value in architecture.model.audio_encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name


def test_phase_1_trains_projector_and_adapters_alone(folder):
    architecture = assets.tiny(folder)
    model, plan = trainable.apply(architecture, mode="lora", lora=LoraDefaults(r=2, after_epochs=1))
    learning = {trainable.plain_name(n) for n, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"projector", "language_model"}
    assert all("proj" in name for name in learning)
    assert plan.unfreeze and all(
        "lora_" in name and name.startswith("language_model.") for name in plan.unfreeze
    )
    trainable.freeze_for_now(model, plan)
    learning = {trainable.plain_name(n) for n, p in model.named_parameters() if p.requires_grad}
    assert learning and all(name.startswith("projector.") for name in learning)


def test_phase_2_trains_the_aligner_alone_and_its_loss_reaches_all_of_it(aligned):
    model, _ = trainable.apply(aligned)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    batch = aligned.collate(assets.features(aligned))
    assert batch["supervised"].tolist() == [12, 8]  # a start and an end for each of six and four words
    model(**model_inputs(batch)).loss.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("aligner.") for name in changed)
    assert {name for name in before if name.startswith("aligner.")} == changed


def test_phase_2_learns_when_words_are_spoken(folder, phase1):
    architecture = assets.tiny(folder, name=str(phase1), phase=2, aligner={"dropout": 0.0, "width": 32})
    model, _ = trainable.apply(architecture)
    rows = assets.features(architecture, (1.0, 2.5))
    batch = architecture.collate(rows)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(**model_inputs(batch)).loss.backward()
        optimizer.step()
    model.eval()
    found = architecture.aligner(model, batch, list(assets.TEXTS[:2]))
    for words, row in zip(found, rows, strict=True):
        assert [word.text for word in words] == assets.TEXTS[int(row["id"][1])].split()
        for word, start, end in zip(words, row["starts"], row["ends"], strict=True):
            assert abs(word.start - start) < 0.04 and abs(word.end - end) < 0.04


def test_aligning_gives_every_row_the_same_alone_and_in_a_batch(aligned):
    rows = assets.features(aligned, (2.5, 2.5))
    model = aligned.model.eval()
    texts = ["a cat", "we met at noon again"]
    together = aligned.aligner(model, aligned.collate(rows), texts)
    for row, text, words in zip(rows, texts, together, strict=True):
        (alone,) = aligned.aligner(model, aligned.collate([row]), [text])
        assert [(w.text, round(w.start, 3), round(w.end, 3), round(w.confidence, 4)) for w in words] == [
            (w.text, round(w.start, 3), round(w.end, 3), round(w.confidence, 4)) for w in alone
        ]
    assert aligned.aligner(model, aligned.collate(rows), ["", "noon"])[0] == ()


def test_a_words_confidence_is_the_probability_of_its_tokens(aligned):
    model = aligned.model.eval()
    batch = aligned.collate(assets.features(aligned, (1.0,)))
    (words,) = aligned.aligner(model, batch, ["a cat sat"])
    said = aligned.collate.texts([aligned.encode.spoken("a cat sat")], batch["frames"])
    with torch.no_grad():
        logits = model(
            input_ids=said["input_ids"], input_features=batch["input_features"], frames=batch["frames"]
        ).logits[0]
    probabilities = logits.softmax(dim=-1)
    expected = [1.0, 1.0, 1.0]
    for place, word in enumerate(said["token_words"][0].tolist()):
        if word >= 0:
            expected[word] *= float(probabilities[place - 1, said["input_ids"][0, place]])
    assert [word.confidence for word in words] == pytest.approx(expected, rel=1e-4)


def test_tokens_belong_to_the_word_that_they_end_in(architecture):
    ids, words = word_of_tokens(architecture.processor.tokenizer, "the cat's mat, äh")
    pieces = ["", "", "", ""]
    for token, word in zip(ids, words, strict=True):
        pieces[word] += architecture.processor.tokenizer.decode([token])
    assert [piece.strip() for piece in pieces[:3]] == ["the", "cat's", "mat,"]
    assert words == sorted(words) and set(words) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("words", "reason"),
    [(0, "has no word times; training.phase=2"), (3, "the transcript has 6 words, the word times 3")],
)
def test_phase_2_refuses_utterances_without_the_right_times(aligned, words, reason):
    row = assets.example("u", 1.0, assets.TEXTS[0])
    with pytest.raises(ValueError, match=reason):
        aligned.encode.check(dataclasses.replace(row, words=row.words[:words]), 1.0)


def test_the_folder_loads_through_the_auto_classes(folder, aligned):
    place = assets.saved(aligned, folder / "phase2")
    model, processor = AutoModel.from_pretrained(place).eval(), AutoProcessor.from_pretrained(place)
    for (name, a), (other, b) in zip(
        aligned.model.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(a, b)
    assert processor.prompt("x") == aligned.processor.prompt("x")
    assert processor.tokenizer.chat_template == aligned.processor.tokenizer.chat_template
    assert not any("decoder" in name for name in model.state_dict())  # Whisper's is not kept
    batch = aligned.collate(assets.features(aligned))
    assert torch.equal(
        aligned.generate(batch, max_new_tokens=4, do_sample=False)["transcribe"],
        aligned.generate(batch, model=aligned.model.eval(), max_new_tokens=4, do_sample=False)["transcribe"],
    )


def test_noise_is_heard_at_another_length_of_context(folder):
    full = assets.tiny(folder, encoder_context="full")
    batch = full.collate(assets.features(full, (1.0,)))
    assert batch["input_features"].shape[-1] == 3000
    assert (batch["input_ids"] == full.model.config.audio_token_id).sum() == 13
    assert full.encode(assets.example("u", 1.0), whisper_assets.noise(1.0))["labels"]["transcribe"] == list(
        full.encode.after
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"phase": 2, "instruction": "Write."},
            r"model\.instruction: 'Write\.', but .* learnt with 'Transcribe the",
        ),
        (
            {"phase": 2, "encoder_context": "full"},
            r"model\.encoder_context: 'full', but .* learnt with 'trimmed'",
        ),
        ({"stack": 2}, r"model\.stack: 2, but .* learnt with 4"),
    ],
)
def test_phase_2_asks_and_hears_as_phase_1_has_learnt(folder, phase1, changed, message):
    with pytest.raises(UserError, match=message):
        assets.tiny(folder, name=str(phase1), **changed)


def test_phase_1_does_not_go_on_with_a_model_of_phase_2(folder, aligned):
    place = assets.saved(aligned, folder / "after")
    with pytest.raises(UserError, match="has been through phase 2"):
        assets.tiny(folder, name=str(place))


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_a_folder_without_a_whole_model_is_named(tmp_path, folder, phase1, lacking):
    shutil.copytree(phase1, tmp_path / "part")
    (tmp_path / "part" / lacking).unlink()
    with pytest.raises(UserError, match=r"model\.name: .*part.* holds no whole VoxLM"):
        assets.tiny(folder, name=str(tmp_path / "part"), phase=2)


def test_another_model_than_a_voxlm_is_named(folder):
    with pytest.raises(UserError, match=r"whisper' holds no whole VoxLM \(it is a whisper\)"):
        assets.tiny(folder, name=str(folder / "whisper"), phase=2)


def test_language_models_that_scale_their_logits_are_refused(tmp_path, folder):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = GraniteConfig(
        vocab_size=300, num_attention_heads=2, num_key_value_heads=2, logits_scaling=8.0, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder / "llm").save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"model\.llm: .*is a granite, whose logits are scaled \(logits_scaling\)"
    ):
        assets.tiny(folder, llm=str(tmp_path))


def test_a_language_model_without_its_output_matrix_is_refused(tmp_path, folder):
    """It would be made up, and never learn."""
    llm = AutoModelForCausalLM.from_pretrained(folder / "llm")
    config = copy.deepcopy(llm.config)
    config.tie_word_embeddings = False
    whole = AutoModelForCausalLM.from_config(config)
    weights = {name: value for name, value in whole.state_dict().items() if name != "lm_head.weight"}
    whole.save_pretrained(tmp_path, state_dict=weights)
    AutoTokenizer.from_pretrained(folder / "llm").save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"model\.llm: .*lacks 1 of this model's weights, such as lm_head\.weight"
    ):
        assets.tiny(folder, llm=str(tmp_path))


def test_words_end_with_the_clip(aligned, monkeypatch):
    """The encoder hears 40 ms of silence behind it."""
    batch = aligned.collate(assets.features(aligned, (1.0,)))
    model = aligned.model.eval()
    point = model.point

    def last(*args):
        found = point(*args)
        late = torch.zeros_like(found.end_logits)
        late[..., -1] = 1000.0
        return dataclasses.replace(found, end_logits=late)

    monkeypatch.setattr(model, "point", last)
    (words,) = aligned.aligner(model, batch, ["a cat"])
    assert words[-1].end == 1.0


# Trap 7.
def test_of_the_aligner_too(aligned):
    rows = assets.features(aligned, (1.0, 1.0))
    model = aligned.model.eval()
    whole = aligned.collate(rows)
    items = whole["supervised"].sum()
    parts = [model(**model_inputs(aligned.collate([row])), num_items_in_batch=items).loss for row in rows]
    torch.testing.assert_close(sum(parts), model(**model_inputs(whole)).loss)


def test_an_instruction_with_the_placeholder_is_refused(folder):
    with pytest.raises(UserError, match=r"model\.instruction: <\|audio\|> is a control token"):
        assets.tiny(folder, instruction="Hear <|audio|>.")


def test_a_voxlm_transcribes_and_asks_for_no_translations() -> None:
    assert options_class("voxlm")(name="outputs/some_run").tasks == ("transcribe",)


def test_a_folder_without_its_runs_configuration_loads(phase1):
    """A copy of the model's files alone: what ``config.json`` remembers is enough."""
    assert not (phase1 / "config.yaml").exists()
    found = load_trained(phase1)
    assert found.model_type == "voxlm" and found.config is None
    assert found.architecture.tasks == ("transcribe",)
