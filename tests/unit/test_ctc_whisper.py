"""CTC on the encoder of a Whisper: where its weights come from, what it reads, which of it learns."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ctc_assets import TEXTS, context, example, noise, options, rows, saved, tiny, whisper
from speech_files import manifest, sound
from transformers import WhisperForConditionalGeneration

from training.base.errors import NotInReach, UserError
from training.config.load import config_from, load_config
from training.data.augment import make_augment
from training.data.dataset import SpeechDataset
from training.data.example import TRANSCRIBE
from training.data.manifest import load_manifest
from training.data.options import Augmentation, Join
from training.decoding.ctc_setup import SearchOptions
from training.decoding.loading import load_trained
from training.engine.fit import joining
from training.engine.freezing import apply
from training.models.architecture import BuildContext
from training.models.batch import model_inputs
from training.models.ctc.build import Ctc
from training.models.ctc.config import Options

MODELS = os.environ.get("POLYVOX_MODELS")


def test_the_encoder_is_the_whispers_and_in_full_context_computes_what_it_computes():
    architecture = tiny("whisper", encoder_context="full").model.eval()
    stock = WhisperForConditionalGeneration.from_pretrained(whisper()).model.encoder.eval()
    for name, value in stock.state_dict().items():
        assert torch.equal(architecture.encoder.state_dict()[name], value), name
    batch = tiny("whisper", encoder_context="full").collate(rows(tiny("whisper")))
    assert batch["input_features"].shape == (3, 16, 3000)
    states, lengths = architecture.states(batch["input_features"], batch["attention_mask"])
    torch.testing.assert_close(states, stock(batch["input_features"]).last_hidden_state)
    assert lengths.tolist() == [40, 67, 50]  # 20 ms each, of 0.8, 1.33 and 1.0 s


def test_the_batch_is_the_stock_log_mels_cut_behind_the_longest_clip_and_a_margin():
    architecture = tiny("whisper", context_margin_seconds=0.5)
    batch = architecture.collate([architecture.encode(example(), noise(n, 1)) for n in (0.7, 1.0)])
    assert batch["input_features"].shape[-1] == 100 + 4 + 50
    extractor = architecture.processor.feature_extractor
    for row, seconds in zip(batch["input_features"], (0.7, 1.0), strict=True):
        stock = extractor(noise(seconds, 1), sampling_rate=16000, return_tensors="pt").input_features[0]
        torch.testing.assert_close(row, stock[:, : row.shape[-1]], atol=1e-5, rtol=1e-4)
    assert batch["attention_mask"].sum(-1).tolist() == [70, 100]


def test_masked_log_mels_are_followed_by_silence_all_the_same():
    architecture = tiny("whisper")
    row = architecture.encode(example(), noise(1.0))
    masked = row["input_features"].copy()
    masked[-20:] = 0.0
    batch = architecture.collate([{**row, "input_features": masked}])
    assert (batch["input_features"][0, :, len(masked) :] == float(masked.min())).all()


@pytest.mark.parametrize("head", [{}, {"head_layers": 1, "conv_kernel": 3}])
def test_frozen_only_what_is_new_learns_and_nothing_of_the_encoder_is_kept_for_the_backward_pass(head):
    architecture = tiny("whisper", **head)
    model, _ = apply(architecture, freeze_encoder=True)
    learning = {name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert learning == ({"ctc_head", "head_layers"} if head else {"ctc_head"})
    batch = model_inputs(architecture.collate(rows(architecture)))
    states, _ = model.train().states(batch["input_features"], batch["attention_mask"])
    assert states.requires_grad == bool(head)
    model(**batch).loss.backward()
    assert all((value.grad is not None) == value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("mode", ["all", "lna", "lora"])
def test_unfrozen_the_head_learns_in_every_mode_and_the_positions_in_none(mode):
    architecture = tiny("whisper", head_layers=1)
    model, _ = apply(architecture, mode=mode)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any("embed_positions" in name for name in learning)
    assert any("encoder.layers.1" in name for name in learning)
    new = {
        name
        for name, _ in model.named_parameters()
        if ("ctc_head." in name or "head_layers." in name) and "original_module" not in name
    }
    assert len(new) == 2 + 14 and new <= learning
    model(**model_inputs(architecture.collate(rows(architecture)))).loss.backward()


def test_the_folder_loads_alone_with_its_context_and_writes_words_with_times(tmp_path):
    wanted = tiny("whisper", context_margin_seconds=0.4, head_layers=1, conv_kernel=3)
    again = load_trained(saved(wanted, tmp_path)).architecture
    assert again.collate.margin == 0.4 and again.collate.context == "trimmed"
    features = rows(wanted)
    frames = wanted.frames.log_probs(wanted.model.eval(), wanted.collate(features))
    found = again.frames.log_probs(again.model, again.collate(rows(again)))
    for one, other in zip(frames, found, strict=True):
        np.testing.assert_array_equal(one, other)
    for width in (1, 5):
        words = SearchOptions(beam_width=width).decoder(again)(frames[1]).words
        assert words and all(0 <= word.start <= word.end <= 1.35 for word in words)
    assert not any(Path(tmp_path).glob("*decoder*"))


def test_a_run_of_a_whisper_goes_on_from_its_head(tmp_path):
    before = tiny("whisper", head_layers=1)
    tuned = Ctc.build(options("whisper", pretrained=str(saved(before, tmp_path))), context())
    assert "the output layer is kept" in tuned.notes[-1]
    for name, value in before.model.state_dict().items():
        assert torch.equal(tuned.model.state_dict()[name], value), name
    with pytest.raises(UserError, match=r"model.head_layers: 2, but .* has 1"):
        Ctc.build(options("whisper", pretrained=str(tmp_path), head_layers=2), context())


def test_contradictions_are_refused_by_key(tmp_path):
    with pytest.raises(UserError, match=r"model.d_model: 32, but .* has 16"):
        tiny("whisper", d_model=32)
    with pytest.raises(UserError, match=r"model.sample_rate: 8000, but .* takes 16000"):
        tiny("whisper", sample_rate=8000)
    with pytest.raises(UserError, match=r"model.name: .* give the hub id or the folder of a Whisper"):
        tiny("whisper", name=None)
    with pytest.raises(ValueError, match=r"name \(x\): only for encoder: whisper"):
        options("fastconformer", name="x")
    with pytest.raises(ValueError, match=r"subsampling \(8\): the Whisper itself decides it"):
        options("whisper", subsampling=8)
    with pytest.raises(UserError, match=r"model.encoder: whisper, but .* holds a transformer"):
        tiny("whisper", name=str(saved(tiny("transformer"), tmp_path)))
    file = tmp_path / "run.yaml"
    file.write_text("model: {type: ctc, encoder: whisper}\n")
    with pytest.raises(UserError, match=r"run.yaml:1: model.name: encoder: whisper has pretrained weights"):
        load_config(file)


def test_a_run_can_be_repeated_from_all_of_its_options():
    """A run's folder states every key, those too whose defaults are not what a Whisper has."""
    given = options("whisper")
    every = Options(**given.model_dump())
    assert every.model_fields_set > given.model_fields_set
    assert Ctc.build(every, context()).model.config.d_model == 16


def test_a_clip_beyond_whispers_context_is_refused():
    architecture = tiny("whisper")
    architecture.encode.check(example(), 30.0)
    with pytest.raises(ValueError, match=r"31.000 s of audio, at most 30 s"):
        architecture.encode.check(example(), 31.0)


def test_without_weights_a_public_whisper_has_its_shape_and_another_is_out_of_reach():
    texts = context().texts
    named = Options(encoder="whisper", name="openai/whisper-base", languages=("en",))
    architecture = Ctc.build(named, BuildContext(texts=texts, meta=True))
    assert architecture.model.config.d_model == 512
    assert all(parameter.is_meta for parameter in architecture.model.parameters())
    with pytest.raises(NotInReach, match=r"model.name: 'nobody/nothing'"):
        Ctc.build(Options(encoder="whisper", name="nobody/nothing"), BuildContext(texts=texts))


@pytest.mark.skipif(MODELS is None, reason="POLYVOX_MODELS names no folder of real weights")
def test_whisper_base_takes_a_ctc_output():
    architecture = tiny("whisper", name=str(Path(str(MODELS), "whisper-base")))
    batch = architecture.collate(rows(architecture, (1.0, 1.5, 1.5)))
    result = architecture.model(**model_inputs(batch))
    assert result.encoder_last_hidden_state.shape[-1] == 512
    assert architecture.encode(example(text=TEXTS[1]), noise(2.0))["labels"][TRANSCRIBE]
    assert torch.isfinite(result.loss)


def test_clips_are_joined_to_no_more_than_the_encoder_takes(tmp_path: Path) -> None:
    """Pauses that make them longer than 30 s are shortened: the training goes on."""
    architecture = tiny("whisper")
    cells = [
        {
            "id": f"u{n}", "audio_path": sound(tmp_path / f"{n}.wav", 9.8, rate=16000, seed=n).name, "duration": 9.8,
            "transcript": TEXTS[n],
        }
        for n in range(3)
    ]  # fmt: skip
    changes = Augmentation(join=Join(prob=1.0, pause=5.0))
    data = SpeechDataset(
        load_manifest(manifest(tmp_path / "m.tsv", cells)),
        architecture.encode,
        16000,
        augment=make_augment(changes, sample_rate=16000, seed=1, spectrogram=False),
    )
    for epoch in range(3):
        found = data.drawn((0, 1, 2), epoch)
        assert found["id"] == "u0+u1+u2" and 3 * 9.8 <= found["seconds"] <= 30.01
    longer = config_from(
        {
            "model": {"type": "ctc", "encoder": "whisper", "name": whisper()},
            "audio": {"max_length_seconds": 60},
            "augmentation": {"join": {"prob": 1.0}},
        }
    )
    assert joining(longer, architecture).longest == 30
    assert joining(longer, tiny("transformer")).longest == 60
