from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e_tiny import (
    DECODER,
    ENCODER,
    TRANSCRIPTS,
    TRANSLATIONS,
    batch,
    clip,
    example,
    inputs,
    options,
    texts,
    tiny,
)
from pydantic import ValidationError
from transformers import (
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
)

from training.base.errors import UserError
from training.decoding.loading import load_trained
from training.models.architecture import Architecture, BuildContext
from training.models.common.sizes import SIZES
from training.models.e2e.build import E2E
from training.models.e2e.config import Options
from training.models.e2e.processor import SpeechProcessor
from training.models.e2e.tokenizer import text_ids, token_id, train_mbart_tokenizer
from training.models.lookup import available

CONTEXT = BuildContext(texts=texts)
DEV = {"encoder": "facebook/wav2vec2-base", "decoder": "facebook/mbart-large-50"}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders as the hub has them: a pretraining-only wav2vec2 without a tokenizer, and a whole mBART."""
    encoder, decoder = (tmp_path_factory.mktemp(name) for name in ("wav2vec2", "mbart"))
    torch.manual_seed(3)
    Wav2Vec2ForPreTraining(Wav2Vec2Config(**ENCODER)).save_pretrained(encoder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(encoder)
    tokenizer = train_mbart_tokenizer([*TRANSCRIPTS, *TRANSLATIONS, "и ещё слова", "другие тексты"], 400)
    tokenizer.save_pretrained(decoder)
    sizes = {**DECODER, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
    whole = MBartForConditionalGeneration(
        MBartConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    )
    whole.save_pretrained(decoder)
    return {"encoder": str(encoder), "decoder": str(decoder)}


def from_public(public: dict[str, str], **changes: Any) -> Architecture:
    return E2E.build(Options(**{**public, "max_label_tokens": 64, **changes}), CONTEXT)


def decode_logits(architecture: Architecture, ids: list[int], states: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        decoder = architecture.model.eval().decoder
        return decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=states).logits[0]


def test_the_architecture_is_found_by_its_file() -> None:
    assert "e2e" in available()
    assert E2E.Options is Options


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "either encoder and decoder"),
        ({"encoder": "a"}, "either encoder and decoder"),
        ({**DEV, "sizes": {"encoder": {}, "decoder": {}}}, "either encoder and decoder"),
        ({**DEV, "freeze_encodr": True}, "Extra inputs"),
        ({"sizes": {"encoder": {}, "decoder": {}}, "trim_vocabulary": True}, "nothing to trim"),
    ],
)
def test_contradictory_options_are_refused(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Options(**block)


def test_the_guides_block_is_valid() -> None:
    block = Options(type="e2e", add_adapter=True, **DEV)
    assert (block.tasks, block.languages) == (("transcribe", "translate"), ("vi", "vi"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"add_adapter": False}, "model.add_adapter: false, but the encoder is 32 wide and the decoder 24"),
        ({"encoder": {"hiden_size": 32}}, "model.sizes.encoder.hiden_size.*did you mean 'hidden_size'"),
        ({"encoder": {"conv_dim": [4]}}, "model.sizes.encoder: .*convolutional"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**changes)


def test_a_tokenizer_from_scratch_needs_texts() -> None:
    with pytest.raises(UserError, match="needs training texts"):
        E2E.build(options(), BuildContext())


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = tiny().model.state_dict(), tiny().model.state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pretrained_weights_arrive_and_the_feature_extractor_needs_no_tokenizer(
    public: dict[str, str],
) -> None:
    """A decoder loaded on its own from a whole mBART would have random embeddings."""
    architecture = from_public(public)
    whole = MBartForConditionalGeneration.from_pretrained(public["decoder"])
    decoder, rows = architecture.model.decoder, whole.config.vocab_size
    assert torch.equal(decoder.model.decoder.embed_tokens.weight[:rows], whole.model.shared.weight)
    assert decoder.lm_head.weight is decoder.model.decoder.embed_tokens.weight
    for name, weight in whole.model.decoder.named_parameters():
        if "embed_tokens" not in name:
            assert torch.equal(decoder.model.decoder.get_parameter(name), weight), name
    encoder = Wav2Vec2ForPreTraining.from_pretrained(public["encoder"]).wav2vec2
    for name, weight in encoder.named_parameters():
        assert torch.equal(architecture.model.encoder.get_parameter(name), weight), name
    assert architecture.model.mask_encoder is True


def test_a_pretrained_decoder_computes_what_the_whole_mbart_does(public: dict[str, str]) -> None:
    architecture = from_public(public)
    whole = MBartForConditionalGeneration.from_pretrained(public["decoder"]).eval()
    ids, states = [2, 30, 9, 12, 40], torch.randn(1, 7, 24)
    with torch.no_grad():
        expected = whole(decoder_input_ids=torch.tensor([ids]), encoder_outputs=(states,)).logits[0]
    ours = decode_logits(architecture, ids, states)[:, : whole.config.vocab_size]
    torch.testing.assert_close(ours, expected)


# Trap 30.
def test_the_encoders_mask_follows_its_feature_extractor(public: dict[str, str], tmp_path: Path) -> None:
    Wav2Vec2ForPreTraining.from_pretrained(public["encoder"]).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(tmp_path)
    architecture = from_public({**public, "encoder": str(tmp_path)})
    assert architecture.model.mask_encoder is False
    architecture.model.save_pretrained(tmp_path / "run")
    architecture.processor.save_pretrained(tmp_path / "run")
    again = E2E.build(Options(**public, max_label_tokens=64), BuildContext(source=tmp_path / "run"))
    assert again.model.mask_encoder is False


# Trap 5.
def test_new_tokens_come_last_and_a_padded_matrix_is_not_shrunk(
    public: dict[str, str], tmp_path: Path
) -> None:
    architecture = from_public(public, language="mdw", target_language="fr")
    tokenizer = architecture.processor.tokenizer
    new = [token_id(tokenizer, token) for token in ("<2transcribe>", "<2translate>", "mdw_XX")]
    assert new == list(range(len(tokenizer) - 3, len(tokenizer)))
    assert architecture.model.decoder.config.vocab_size == len(tokenizer)

    whole = MBartForConditionalGeneration.from_pretrained(public["decoder"])
    rows = whole.config.vocab_size + 64
    whole.resize_token_embeddings(rows)
    whole.save_pretrained(tmp_path)
    MBart50Tokenizer.from_pretrained(public["decoder"]).save_pretrained(tmp_path)
    padded = from_public({**public, "decoder": str(tmp_path)})
    assert len(padded.processor.tokenizer) < rows
    assert padded.model.decoder.lm_head.weight.shape[0] == rows


def test_what_is_not_there_is_named_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"model.encoder: .*cannot be loaded"):
        E2E.build(Options(encoder=str(tmp_path), decoder=str(tmp_path)), CONTEXT)


def test_a_folder_without_a_tokenizer_is_refused(public: dict[str, str], tmp_path: Path) -> None:
    """The stock class would give a tokenizer that knows nothing but language codes, without a word."""
    MBartForConditionalGeneration.from_pretrained(public["decoder"]).save_pretrained(tmp_path)
    assert len(MBart50Tokenizer.from_pretrained(tmp_path)) == 58
    with pytest.raises(UserError, match=r"model.decoder: .*no tokenizer files"):
        from_public({**public, "decoder": str(tmp_path)})


def test_trimming_changes_no_logit_of_a_kept_id(public: dict[str, str]) -> None:
    full, trimmed = from_public(public), from_public(public, trim_vocabulary=True)
    old = trimmed.processor.vocabulary_map
    kept = [(new, was) for new, was in enumerate(old) if was is not None]
    assert len(old) == len(trimmed.processor.tokenizer) == trimmed.model.decoder.config.vocab_size
    assert len(old) < len(full.processor.tokenizer)
    assert [i for i, was in enumerate(old) if was is None] == [len(old) - 2, len(old) - 1]
    ids = text_ids(trimmed.processor.tokenizer, TRANSCRIPTS[2])
    assert [old[i] for i in ids] == text_ids(full.processor.tokenizer, TRANSCRIPTS[2])
    states = torch.randn(1, 5, 24)
    ours = decode_logits(trimmed, ids, states)[:, [new for new, _ in kept]]
    theirs = decode_logits(full, [old[i] for i in ids], states)[:, [was for _, was in kept]]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert trimmed.model.decoder.lm_head.weight is trimmed.model.decoder.model.decoder.embed_tokens.weight
    assert "vocabulary trimmed from" in trimmed.notes[-1]


def test_new_tokens_are_as_long_and_as_far_apart_as_their_neighbours(public: dict[str, str]) -> None:
    """Under LNA and LoRA the embeddings stay frozen: attention has only these vectors to tell the tasks by."""
    architecture = from_public(public)
    rows = architecture.model.decoder.model.decoder.embed_tokens.weight.detach()
    new = rows[
        ids := [
            token_id(architecture.processor.tokenizer, token) for token in ("<2transcribe>", "<2translate>")
        ]
    ]
    kept = rows[: min(ids)]
    kept = kept[kept.norm(dim=-1) > 0]
    apart = torch.pdist(kept).median()
    assert ((new.norm(dim=-1) / kept.norm(dim=-1).median() - 1).abs() < 0.5).all()
    assert torch.pdist(new).item() > 0.5 * apart


def test_the_vocabulary_map_is_saved_and_restored_with_the_checkpoint(
    public: dict[str, str], tmp_path: Path
) -> None:
    architecture = from_public(public, trim_vocabulary=True)
    architecture.model.save_pretrained(tmp_path)
    architecture.processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "vocabulary_map.json").read_text())
    assert list(saved.values()) == architecture.processor.vocabulary_map
    assert list(map(int, saved)) == list(range(len(saved)))
    again = E2E.build(
        Options(**public, trim_vocabulary=True, max_label_tokens=64), BuildContext(source=tmp_path)
    )
    assert again.processor.vocabulary_map == architecture.processor.vocabulary_map
    made = batch(architecture)
    assert torch.equal(batch(again)["labels"], made["labels"])
    torch.testing.assert_close(
        again.model.eval()(**inputs(made)).loss, architecture.model.eval()(**inputs(made)).loss
    )


def test_a_checkpoint_needs_no_texts_and_no_named_models(tmp_path: Path) -> None:
    architecture = tiny(ctc_weight=0.3)
    architecture.model.save_pretrained(tmp_path)
    architecture.processor.save_pretrained(tmp_path)
    again = E2E.build(options(ctc_weight=0.3), BuildContext(source=tmp_path))
    made = batch(architecture)
    torch.testing.assert_close(
        again.model.eval()(**inputs(made)).loss, architecture.model.eval()(**inputs(made)).loss
    )
    assert SpeechProcessor.from_pretrained(tmp_path).vocabulary_map is None
    with pytest.raises(UserError, match="no token 'mdw_XX'"):
        E2E.build(options(language="mdw"), BuildContext(source=tmp_path))


def test_a_folder_alone_has_labels_as_long_as_its_decoder(tmp_path: Path) -> None:
    """Without the run's config.yaml nothing says how long labels were; a decoder of 64 positions is not asked for 256."""
    made = tiny()
    made.save(tmp_path, made.model)
    found = load_trained(tmp_path)
    assert found.config is None and found.architecture.positions == 64
    ids = found.architecture.generate(batch(made), max_new_tokens=100)["transcribe"]
    assert ids.shape[0] == 2 and ids.shape[1] < 64


def test_labels_longer_than_the_decoder_are_refused() -> None:
    with pytest.raises(UserError, match=r"model.max_label_tokens: 2000, but the decoder has 1024 positions"):
        E2E.build(Options(**DEV, max_label_tokens=2000), BuildContext(texts=texts, meta=True))


@pytest.mark.parametrize(
    ("encoder", "millions", "masked"),
    [
        ("facebook/wav2vec2-base", 94.4, False),
        ("facebook/wav2vec2-large-960h", 315.4, False),
        ("facebook/wav2vec2-large-xlsr-53", 315.4, True),
    ],
)
def test_public_shapes_are_known_without_weights(encoder: str, millions: float, masked: bool) -> None:
    """Published sizes: 94.4 M and 315 M; mBART-50's decoder: 250,054 × 1024 embeddings and 12 layers, 459 M."""
    architecture = E2E.build(Options(**{**DEV, "encoder": encoder}), BuildContext(texts=texts, meta=True))
    assert {p.device.type for p in architecture.model.parameters()} == {"meta"}
    assert sum(p.numel() for p in architecture.model.encoder.parameters()) / 1e6 == pytest.approx(
        millions, rel=2e-3
    )
    assert sum(p.numel() for p in architecture.model.decoder.parameters()) / 1e6 == pytest.approx(
        459, rel=2e-3
    )
    assert architecture.model.decoder.config.vocab_size == 250_056
    assert architecture.model.mask_encoder is masked
    assert any("not checked: the tokenizer" in note for note in architecture.notes)
    made = architecture.collate([architecture.encode(example(), clip())])
    assert made["labels"].max() < 250_056


def test_a_trimmed_vocabulary_that_cannot_be_known_is_assumed_and_said_so() -> None:
    architecture = E2E.build(Options(**DEV, trim_vocabulary=True), BuildContext(meta=True))
    assert architecture.model.decoder.config.vocab_size == 20_002
    assert any(
        "not checked: the trimmed vocabulary; 20,000 of 250,054 ids assumed" in n for n in architecture.notes
    )


def test_trimming_needs_texts(public: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"model.trim_vocabulary: needs training texts"):
        E2E.build(Options(**public, trim_vocabulary=True, max_label_tokens=64), BuildContext())


def test_an_unknown_public_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"model.encoder: 'nobody/knows'.*facebook/wav2vec2-base"):
        E2E.build(Options(**{**DEV, "encoder": "nobody/knows"}), BuildContext(meta=True))


def test_sizes_are_fields_of_their_configurations() -> None:
    kinds = {"wav2vec2": Wav2Vec2Config, "mbart": MBartConfig}
    for name, facts in SIZES.items():
        if facts["model_type"] in kinds:
            assert not set(facts["config"]) - set(kinds[facts["model_type"]].__dataclass_fields__), name


def test_a_dry_run_from_scratch_needs_no_memory() -> None:
    architecture = E2E.build(options(), BuildContext(texts=texts, meta=True))
    assert {p.device.type for p in architecture.model.parameters()} == {"meta"}


def test_every_group_names_parameters() -> None:
    architecture = tiny(ctc_weight=0.3)
    names = [name for name, _ in architecture.model.named_parameters()]
    modules = [name for name, _ in architecture.model.named_modules()]
    for group in ("encoder", "feature_encoder", "decoder", "lna"):
        for pattern in architecture.parameter_groups().patterns[group]:
            assert any(fnmatch(name, pattern) for name in names), pattern
    for suffix in architecture.parameter_groups().patterns["lora"]:
        assert any(name.endswith(f".{suffix}") for name in modules), suffix
    lna = {
        name
        for name in names
        if any(fnmatch(name, pattern) for pattern in architecture.parameter_groups().patterns["lna"])
    }
    assert "decoder.model.decoder.layers.0.encoder_attn.k_proj.weight" in lna
    assert "encoder.encoder.layers.0.attention.q_proj.weight" in lna
    assert not any("fc1" in name or "feed_forward" in name or "embed_tokens" in name for name in lna)
