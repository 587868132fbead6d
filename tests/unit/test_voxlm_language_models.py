"""Language models of any family behind VoxLM: their prompts, the tokens that these need, the scale of their embeddings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import voxlm_assets as assets
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from training.base.errors import UserError
from training.models.architecture import Architecture
from training.models.batch import model_inputs
from training.models.voxlm.model import Projector

MODELS = os.environ.get("POLYVOX_MODELS")
TURNS = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def tokenizer(*, begins: bool = True, template: str | None = None, **tokens: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts ``<bos>`` before every text, as Gemma's and Llama's do."""
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=300, initial_alphabet=letters, special_tokens=special, show_progress=False
    )
    trained.train_from_iterator(assets.TEXTS, trainer)
    if begins:
        trained.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", trained.token_to_id("<bos>"))]
        )
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", **tokens}
    made = PreTrainedTokenizerFast(
        tokenizer_object=trained, **{name: token for name, token in named.items() if token}
    )
    made.chat_template = template
    return made


def gemma(folder: Path, rows: int = 300, **options: Any) -> Path:
    """A random Gemma 3 of two layers whose embeddings, as its own, lie around a mean far from 0 in a few dimensions."""
    torch.manual_seed(0)
    made = tokenizer(**options)
    config = Gemma3TextConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        max_position_embeddings=512,
        layer_types=["sliding_attention", "full_attention"],
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
        bos_token_id=made.bos_token_id,
    )
    model = Gemma3ForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, :3] += torch.tensor([0.5, -0.3, 0.2])
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    found = tmp_path_factory.mktemp("voxlm")
    assets.parts(found)
    gemma(found / "gemma")
    return found


def built(folder: Path, llm: Path, **options: Any) -> Architecture:
    return assets.tiny(folder, llm=str(llm), **options)


def shown(architecture: Architecture) -> tuple[str, str, str]:
    """What stands before the sound, between sound and response, and at the end, as text."""
    tokens = architecture.processor.tokenizer
    parts = (architecture.collate.before, architecture.encode.after, [architecture.encode.end])
    return tuple(tokens.decode(list(ids)) for ids in parts)  # type: ignore[return-value]


def test_a_language_model_without_turns_gets_a_plain_prompt_behind_its_first_token(folder):
    architecture = built(folder, folder / "gemma")
    assert shown(architecture) == ("<bos>", "Transcribe the speech.\n", "<eos>")
    batch = architecture.collate(assets.features(architecture))
    assert batch["input_ids"][:, 0].tolist() == [architecture.processor.tokenizer.bos_token_id] * 2


def test_one_that_does_not_begin_its_texts_so_is_not_made_to(folder, tmp_path):
    assert shown(built(folder, gemma(tmp_path, begins=False)))[0] == ""


def test_turns_of_its_own_template_are_taken_and_the_token_that_ends_one_ends_the_response(folder, tmp_path):
    before, after, end = shown(built(folder, gemma(tmp_path, template=TURNS)))
    assert before == "<bos><start_of_turn>user\n"
    assert after == "Transcribe the speech.<end_of_turn>\n<start_of_turn>model\n"
    assert end == "<end_of_turn>"


def test_chatml_is_for_tokenizers_that_have_its_turns(folder):
    before, after, end = shown(assets.tiny(folder))
    assert before == "<|im_start|>user\n" and after.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert end == "<|im_end|>"


def test_a_template_that_refuses_the_turns_is_named(folder, tmp_path):
    refusing = "{{ raise_exception('only a system may speak') }}"
    with pytest.raises(
        UserError, match=r"model.llm: its chat template .*\(only a system may speak\); remove the template"
    ):
        built(folder, gemma(tmp_path, template=refusing))


def test_a_tokenizer_without_a_token_that_ends_a_text_is_refused(folder, tmp_path):
    gemma(tmp_path)
    tokenizer(eos_token="").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model.llm: its tokenizer has no token that ends a text"):
        built(folder, tmp_path)


def test_a_tokenizer_of_another_model_is_refused_before_anything_learns(folder, tmp_path):
    gemma(tmp_path, rows=250)
    with pytest.raises(UserError, match=r"of the prompt is token \d+, and the model has embeddings for 250"):
        built(folder, tmp_path)


def test_the_sound_begins_where_the_language_models_embeddings_lie(folder):
    architecture = built(folder, folder / "gemma")
    model, embedding = architecture.model, AutoModelForCausalLM.from_pretrained(folder / "gemma")
    vectors = embedding.get_input_embeddings()(torch.arange(300)).detach()
    torch.testing.assert_close(model.projector.mean, vectors.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        model.projector.deviation, vectors.std(dim=0, correction=0), rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():
        sound = model.projector(torch.randn(500, model.projector.norm.weight.numel()))
    far = (sound.mean(dim=0) - vectors.mean(dim=0)).abs() / vectors.std(dim=0)
    assert float(far.max()) < 1.5 and float((sound.std(dim=0) / vectors.std(dim=0)).max()) < 1.5


def test_a_folder_of_an_earlier_version_keeps_its_projector(folder, tmp_path):
    """Its weights were learnt without the scale."""
    architecture = built(folder, folder / "gemma")
    model = architecture.model
    old = Projector(model.projector.norm.weight.numel(), model.config.projector_width, 32)
    model.projector, model.config.projector_scaled = old, False
    frames = torch.randn(3, old.norm.weight.numel())
    again = assets.tiny(folder, name=str(assets.saved(architecture, tmp_path)))
    assert not again.model.config.projector_scaled
    torch.testing.assert_close(again.model.projector(frames), old(frames))


def test_a_gemma_learns_is_saved_and_writes_on(folder, tmp_path):
    architecture = built(folder, folder / "gemma")
    batch = architecture.collate(assets.features(architecture))
    model = architecture.model.train()
    optimiser = torch.optim.AdamW(model.projector.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = model(**model_inputs(batch)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    wanted = architecture.generate(batch, model=model.eval(), max_new_tokens=4)["transcribe"]
    again = assets.tiny(folder, name=str(assets.saved(architecture, tmp_path)))
    assert torch.equal(again.generate(batch, max_new_tokens=4)["transcribe"], wanted)
    assert shown(again) == shown(architecture)
    torch.testing.assert_close(again.model.projector.mean, model.projector.mean)


def test_one_with_learnt_positions_writes_the_same_in_a_batch_as_alone(folder, tmp_path):
    """Shorter prompts are padded on the left; their tokens keep the positions that training gave them."""
    torch.manual_seed(0)
    made = tokenizer()
    config = GPT2Config(
        vocab_size=300,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=512,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.3)
    model.save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    architecture = built(folder, tmp_path)
    model = architecture.model.eval()
    rows = assets.features(architecture)
    batch = architecture.collate(rows)
    together = architecture.generate(batch, max_new_tokens=12)["transcribe"]
    assert len({tuple(row) for row in together.tolist()}) == len(rows)
    for i, row in enumerate(rows):
        alone = architecture.collate([row])
        # What the encoder reads behind a clip is that of the batch.
        alone = {**alone, "input_features": batch["input_features"][i : i + 1]}
        found = architecture.generate(alone, max_new_tokens=12)["transcribe"][0].tolist()
        assert found == together[i, : len(found)].tolist()


@pytest.mark.skipif(MODELS is None, reason="POLYVOX_MODELS names no folder of real weights")
def test_the_first_gradient_with_gemma_270m_is_small(folder):
    """It was 1,073 on recorded speech, and is some 30."""
    real = Path(str(MODELS))
    encoder = {"audio_encoder": str(real / "whisper-base")}
    architecture = built(folder, real / "gemma-3-270m", **encoder)
    tokens = AutoTokenizer.from_pretrained(real / "gemma-3-270m")
    assert architecture.collate.before == (tokens.bos_token_id,)
    model = architecture.model.train()
    for part in (model.audio_encoder, model.language_model):
        part.requires_grad_(False)
    model(**model_inputs(architecture.collate(assets.features(architecture, (1.0,))))).loss.backward()
    squares = sum(float(value.grad.square().sum()) for value in model.projector.parameters())
    assert squares**0.5 < 50
