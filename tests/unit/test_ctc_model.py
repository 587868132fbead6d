"""CTC models of every encoder: loss, frames, padding, folders, fine-tuning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from ctc_assets import CONVOLUTIONS, ENCODERS, TEXTS, context, example, noise, options, rows, saved, tiny
from transformers import AutoModelForCTC

from training.base.errors import UserError
from training.data.example import TRANSCRIBE
from training.decoding.ctc_decoding import CtcDecoder, with_frame_decoder
from training.decoding.ctc_setup import SearchOptions
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.decoding.loading import load_trained
from training.models.architecture import DecodeOptions
from training.models.batch import model_inputs
from training.models.common.targets import IGNORED
from training.models.ctc.build import Ctc, collapsed
from training.models.ctc.config import Options
from training.models.ctc.parts import DROPOUTS
from training.models.ctc.processor import log_mel_extractor

every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def alike(encoder: str) -> dict[str, str]:
    """Options with which a clip gives the same in any batch: Whisper's encoder reads the silence after it."""
    return {"encoder_context": "full"} if encoder == "whisper" else {}


def output(architecture, features):
    architecture.model.eval()
    with torch.no_grad():
        return architecture.model(**model_inputs(architecture.collate(features)))


@every_encoder
def test_the_loss_is_ctc_over_the_real_frames_divided_by_the_items(encoder):
    architecture = tiny(encoder)
    features = rows(architecture)
    batch, result = architecture.collate(features), output(architecture, features)
    wanted = 0.0
    for i, row in enumerate(features):
        labels = torch.tensor(row["labels"][TRANSCRIBE])
        frames = result.logits[i, : int(result.lengths[i])].log_softmax(-1)[:, None]
        wanted += torch.nn.functional.ctc_loss(
            frames, labels[None], torch.tensor([len(frames)]), torch.tensor([len(labels)]), reduction="sum"
        )
    tokens = int((batch["labels"] != IGNORED).sum())
    assert tokens == sum(len(row["labels"][TRANSCRIBE]) for row in features)
    torch.testing.assert_close(result.loss, wanted / tokens)
    given = architecture.model(**model_inputs(batch), num_items_in_batch=torch.tensor(7)).loss
    torch.testing.assert_close(given, wanted / 7)


# Trap 7.
@every_encoder
def test_accumulated_losses_are_those_of_the_whole_batch(encoder):
    """Different numbers of tokens in each clip: a mean of batch means would differ."""
    architecture = tiny(encoder, **alike(encoder))
    features = rows(architecture)
    items = sum(len(row["labels"][TRANSCRIBE]) for row in features)
    architecture.model.eval()
    parts = [
        architecture.model(**model_inputs(architecture.collate([row])), num_items_in_batch=items).loss
        for row in features
    ]
    torch.testing.assert_close(sum(parts), output(architecture, features).loss, rtol=1e-5, atol=1e-5)


@every_encoder
def test_a_clip_gives_the_same_in_any_batch_and_as_many_frames_as_were_counted(encoder):
    architecture = tiny(encoder, **alike(encoder))
    features = rows(architecture)
    together = architecture.frames.log_probs(architecture.model.eval(), architecture.collate(features))
    for row, frames, seconds in zip(features, together, (0.8, 1.33, 1.0), strict=True):
        (alone,) = architecture.frames.log_probs(architecture.model, architecture.collate([row]))
        assert len(alone) == len(frames) == architecture.encode.frames.of(round(seconds * 16000))
        np.testing.assert_allclose(alone, frames, atol=1e-5)
        assert len(frames) * architecture.frames.seconds_per_frame == pytest.approx(seconds, abs=0.05)
        np.testing.assert_allclose(np.exp(frames).sum(axis=-1), 1.0, atol=1e-5)


SILENCE = {"feature_norm": "peak", "edge_silence": 0.2}
log_mels = pytest.mark.parametrize("encoder", ["fastconformer", CONVOLUTIONS])


@log_mels
def test_silence_at_the_edges_is_that_of_a_clip_that_has_it(encoder, tmp_path):
    """Before and after every clip, remembered by the folder, counted in frames."""
    architecture, bare = tiny(encoder, **SILENCE), tiny(encoder, feature_norm="peak")
    clip, quiet = noise(0.8), np.zeros(3200, np.float32)
    features = architecture.encode(example(), clip)
    padded = bare.encode(example(), np.concatenate([quiet, clip, quiet]))
    np.testing.assert_array_equal(features["input_features"], padded["input_features"])
    assert features["seconds"] == 0.8
    (frames,) = architecture.frames.log_probs(architecture.model.eval(), architecture.collate([features]))
    assert len(frames) == architecture.encode.frames.of(len(clip)) == 60
    again = load_trained(saved(architecture, tmp_path)).architecture
    for width in (1, 5):
        decoder = SearchOptions(beam_width=width).decoder(again)
        words = decoder(frames).words
        assert decoder.edge_seconds == 0.2 and all(
            0 <= word.start <= word.end <= 0.8 + 1e-6 for word in words
        )
    assert again.frames.edge_seconds == 0.2 and again.encode.frames.of(len(clip)) == 60
    np.testing.assert_array_equal(again.encode(example(), clip)["input_features"], features["input_features"])


@log_mels
def test_training_uses_clips_without_the_silence_that_use_adds(encoder):
    """A silence of always one length would be learnt as a sign; the silence of training is drawn by ``shift``."""
    architecture, bare = tiny(encoder, **SILENCE), tiny(encoder, feature_norm="peak")
    clip = noise(0.8)
    taught = architecture.train_encode(example(), clip)
    np.testing.assert_array_equal(taught["input_features"], bare.encode(example(), clip)["input_features"])
    assert taught["labels"] == architecture.encode(example(), clip)["labels"] and bare.train_encode is None
    tight = example(text="ha " * 16)
    architecture.encode.check(tight, 0.8)
    with pytest.raises(ValueError, match="cannot align"):
        architecture.train_encode.check(tight, 0.8)


@log_mels
@pytest.mark.parametrize("text", ["ha ha ha", "xin chào các bạn"])
def test_the_shortest_clip_for_a_text_may_count_the_silence_around_it(encoder, text):
    architecture = tiny(encoder, **SILENCE)
    wanted = len(architecture.encode.tokenizer.encode(text)) + sum(a == b for a, b in pairwise(text))
    shortest = architecture.encode.frames.samples(wanted)
    assert architecture.encode.frames.of(shortest) == wanted or shortest == 160
    architecture.encode.check(example(text=text), max(shortest, 320) / 16000)


def test_silence_at_the_edges_needs_a_norm_that_does_not_mind_it():
    with pytest.raises(ValueError, match=r"edge_silence \(0.2\): other norms than feature_norm: peak"):
        options(edge_silence=0.2)


@every_encoder
def test_generating_is_the_best_path_of_the_frames(encoder):
    architecture = tiny(encoder)
    batch = architecture.collate(rows(architecture))
    with torch.no_grad():
        states = architecture.model.eval()(**model_inputs(batch)).encoder_last_hidden_state
        ids = architecture.generate(batch, states=states, max_new_tokens=3)[TRANSCRIBE]
        assert torch.equal(ids, architecture.generate(batch)[TRANSCRIBE])
    decoder = CtcDecoder(
        CtcVocabulary(architecture.frames.tokens, architecture.frames.blank),
        architecture.frames.seconds_per_frame,
    )
    frames = architecture.frames.log_probs(architecture.model, batch)
    assert [architecture.text(row) for row in ids.tolist()] == [decoder(one).text for one in frames]


def test_a_path_is_merged_before_its_blanks_go():
    path = torch.tensor([0, 3, 3, 0, 3, 5, 5, 0])
    assert collapsed(path).tolist() == [3, 3, 5]


# Trap 9.
@every_encoder
def test_a_text_that_the_frames_cannot_hold_is_refused_by_name(encoder):
    """And its loss would be infinite, not hidden as zero."""
    architecture = tiny(encoder)
    long = "ha " * 100
    for refused in (
        lambda: architecture.encode(example(text=long), noise(1.0)),
        lambda: architecture.encode.check(example(text=long), 1.0),
    ):
        with pytest.raises(ValueError, match=r"CTC cannot align \d+ tokens \(needs \d+ frames\) with \d+"):
            refused()
    fits = architecture.encode(example(text="ha"), noise(1.0))
    fits["labels"] = {TRANSCRIBE: architecture.encode.tokenizer.encode(long)}
    assert torch.isinf(output(architecture, [fits]).loss)


def test_the_last_text_that_fits_is_taken_and_has_a_finite_loss():
    architecture = tiny(subsampling=4)
    frames = architecture.encode.frames.of(16000)
    features = architecture.encode(example(text="a" * ((frames + 1) // 2)), noise(1.0))
    assert len(features["labels"][TRANSCRIBE]) == (frames + 1) // 2
    assert torch.isfinite(output(architecture, [features]).loss)
    with pytest.raises(ValueError, match="cannot align"):
        architecture.encode(example(text="a" * ((frames + 1) // 2 + 1)), noise(1.0))


def test_texts_without_letters_and_clips_without_sound_are_refused():
    architecture = tiny()
    architecture.encode.check(example(text=None), 1.0)  # to be transcribed, not trained on
    with pytest.raises(ValueError, match="the transcript has no letters and no digits"):
        architecture.encode.check(example(text="?!"), 1.0)
    with pytest.raises(ValueError, match="less than two frames"):
        architecture.encode(example(text="a"), noise(0.015))
    assert architecture.encode(example(text=None), noise(1.0))["labels"] == {TRANSCRIBE: []}


def test_a_clip_without_text_adds_nothing_to_the_loss():
    architecture = tiny()
    features = rows(architecture)
    silent = architecture.encode(example("silent", text=None), noise(1.1, 9))
    torch.testing.assert_close(
        output(architecture, [*features, silent]).loss, output(architecture, features).loss
    )


def test_label_smoothing_draws_the_frames_to_equal_probabilities():
    architecture = tiny()
    features = rows(architecture)
    plain = output(architecture, features)
    architecture.model.label_smoothing = 0.25
    smoothed = output(architecture, features).loss
    tokens = sum(len(row["labels"][TRANSCRIBE]) for row in features)
    spread = sum(
        -frames[: int(n)].log_softmax(-1).mean(-1).sum()
        for frames, n in zip(plain.logits, plain.lengths, strict=True)
    )
    torch.testing.assert_close(smoothed, 0.75 * plain.loss + 0.25 * spread / tokens)


@pytest.mark.parametrize("encoder", ["fastconformer", CONVOLUTIONS])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_share_of_the_training_loss_is_that_of_the_states_half_way_up(encoder, checkpointing):
    architecture = tiny(encoder, num_encoder_layers=4, middle_weight=0.25)
    model, batch = architecture.model, model_inputs(architecture.collate(rows(architecture)))
    plain = model.eval()(**batch).loss
    model.encoder.layers, upper = model.encoder.layers[:2], model.encoder.layers[2:]
    middle = model(**batch).loss  # the same model with two layers: evaluation has the plain loss
    model.encoder.layers.extend(upper)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(**batch).loss
    torch.testing.assert_close(loss, 0.75 * plain + 0.25 * middle)
    wanted = torch.autograd.grad(0.75 * plain + 0.25 * middle, list(model.parameters()))
    loss.backward()
    for (name, parameter), gradient in zip(model.named_parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4), name


def test_the_states_half_way_up_are_not_those_of_wav2vec2():
    with pytest.raises(ValueError, match=r"middle_weight \(0.3\): not for encoder: wav2vec2; set it to 0"):
        options("wav2vec2", middle_weight=0.3)


def tones(*hertz: float) -> np.ndarray:
    """Fifths of a second of sound, each with its pitch."""
    seconds = np.arange(3200) / 16000
    return np.concatenate([0.3 * np.sin(2 * np.pi * pitch * seconds) for pitch in hertz]).astype(np.float32)


@every_encoder
def test_a_few_steps_on_one_clip_learn_it(encoder):
    torch.manual_seed(0)
    architecture = tiny(encoder, **({} if encoder == "whisper" else {"d_model": 32}))
    row = architecture.encode(example(text="ha no", seconds=1.0), tones(300, 700, 1500, 2500, 4000))
    batch = model_inputs(architecture.collate([row]))
    optimiser = torch.optim.AdamW(architecture.model.parameters(), lr=5e-3)
    architecture.model.train()
    for _ in range(400):
        loss = architecture.model(**batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(architecture.model.parameters(), 1.0)
        optimiser.step()
        if loss < 0.05:
            break
    ids = architecture.generate(architecture.collate([row]))[TRANSCRIBE]
    assert architecture.text(ids[0].tolist()) == "ha no"


@pytest.mark.parametrize("encoder", [*ENCODERS, "batch"])
def test_a_folder_gives_the_model_back_and_stock_transformers_takes_it(encoder, tmp_path):
    changed = {"conv_norm": "batch"} if encoder == "batch" else {}
    encoder = "fastconformer" if encoder == "batch" else encoder
    architecture = tiny(encoder, **changed)
    wanted = output(architecture, rows(architecture)).logits
    again = Ctc.build(options(encoder, **changed), context((), source=saved(architecture, tmp_path)))
    assert again.encode.tokenizer.tokens == architecture.encode.tokenizer.tokens
    assert torch.equal(output(again, rows(again)).logits, wanted)
    if encoder == "wav2vec2" or changed:
        stock = AutoModelForCTC.from_pretrained(tmp_path).eval()
        inputs = model_inputs(architecture.collate(rows(architecture)))
        inputs.pop("labels")
        with torch.no_grad():
            torch.testing.assert_close(stock(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("cut", [None, 100])
def test_a_damaged_folder_is_named(tmp_path, damaged, cut):
    saved(tiny("transformer"), tmp_path)
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).unlink() if cut is None else (tmp_path / damaged).write_bytes(content[:cut])
    with pytest.raises(UserError, match=str(tmp_path)):
        load_trained(tmp_path)


def test_a_folder_of_another_encoder_is_refused(tmp_path):
    saved(tiny("fastconformer"), tmp_path)
    with pytest.raises(UserError, match=r"model.encoder: wav2vec2, but .* holds a fastconformer"):
        Ctc.build(options("wav2vec2"), context(source=tmp_path))


@every_encoder
def test_fine_tuning_with_the_same_vocabulary_keeps_the_head(encoder, tmp_path):
    before = tiny(encoder)
    tuned = Ctc.build(options(encoder, pretrained=str(saved(before, tmp_path))), context())
    assert "the output layer is kept" in tuned.notes[-1]
    for name, value in before.model.state_dict().items():
        assert torch.equal(tuned.model.state_dict()[name], value), name


@every_encoder
def test_fine_tuning_with_another_vocabulary_makes_the_head_anew_and_says_so(encoder, tmp_path):
    before = tiny(encoder, languages=())
    tuned = Ctc.build(options(encoder, pretrained=str(saved(before, tmp_path))), context())
    old, new = before.encode.tokenizer.tokens, tuned.encode.tokenizer.tokens
    assert set(old) < set(new)
    note = tuned.notes[-1]
    assert f"({len(old)} tokens there, {len(new)} here)" in note
    assert "made anew" in note
    assert f"{len(old)} of its rows carried over" in note
    head = "lm_head" if encoder == "wav2vec2" else "ctc_head"
    for part in ("weight", "bias"):
        was, now = (getattr(getattr(one.model, head), part) for one in (before, tuned))
        for token in old:
            assert torch.equal(now[new.index(token)], was[old.index(token)])
    for name, value in before.model.state_dict().items():
        if not name.startswith(head):
            assert torch.equal(tuned.model.state_dict()[name], value), name


def test_sizes_that_contradict_the_checkpoint_are_refused_by_key(tmp_path):
    saved(tiny(), tmp_path)
    with pytest.raises(UserError, match=r"model.d_model: 32, but .* has 16"):
        Ctc.build(options(pretrained=str(tmp_path), d_model=32), context())
    named_nothing = Options(pretrained=str(tmp_path), n_mels=16)
    assert Ctc.build(named_nothing, context()).model.config.encoder_config.hidden_size == 16


def test_convolutions_and_the_norm_of_the_checkpoint_are_not_contradicted(tmp_path):
    saved(tiny(CONVOLUTIONS), tmp_path)
    with pytest.raises(UserError, match=r"model.conv_kernel: 7, but .* has 5"):
        Ctc.build(options(CONVOLUTIONS, pretrained=str(tmp_path), conv_kernel=7), context())
    with pytest.raises(UserError, match=r"model.feature_norm: bands, but .* takes clip"):
        Ctc.build(options(CONVOLUTIONS, pretrained=str(tmp_path), feature_norm="bands"), context())


def test_log_mels_normalised_by_clip_are_the_stock_ones_but_for_the_norm():
    """Shifted and scaled band by band, they are those of the stock extractor."""
    sound = noise(0.5) * np.linspace(0, 1, 8000, dtype=np.float32)
    by_band, by_clip = (
        log_mel_extractor(16000, 20, feature_norm=norm)(sound, sampling_rate=16000, return_tensors="np")
        for norm in ("bands", "clip")
    )
    frames = int(by_band["attention_mask"].sum())
    assert frames == 50
    features = by_clip["input_features"][0]
    assert features.shape == (50, 20)
    assert features.mean() == pytest.approx(0, abs=1e-5)
    assert features.std() == pytest.approx(1, abs=1e-4)
    wanted = by_band["input_features"][0][:frames]
    given = (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)
    np.testing.assert_allclose(given, wanted, atol=1e-3)


def test_silence_is_not_made_loud():
    silence = np.zeros(8000, np.float32)
    clip, peak = (log_mel_extractor(16000, 20, feature_norm=norm) for norm in ("clip", "peak"))
    assert np.abs(clip(silence, return_tensors="np")["input_features"]).max() < 1
    assert peak(silence, return_tensors="np")["input_features"].max() < 0.5


def test_log_mels_normalised_by_the_peak_do_not_hear_the_silence_around_nor_the_level():
    extractor = log_mel_extractor(16000, 20, feature_norm="peak")
    sound = noise(0.5) * np.linspace(1, 10, 8000, dtype=np.float32)
    alone = extractor(sound, return_tensors="np")["input_features"][0]
    assert alone.max() == pytest.approx(7 / 2.5)
    quiet = extractor(sound / 4, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(quiet, alone, atol=2e-2)
    around = np.concatenate([np.zeros(4800, np.float32), sound, np.zeros(4800, np.float32)])
    inside = extractor(around, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(inside[32:78], alone[2:48], atol=1e-4)
    assert inside[:28].max() == inside.min() == pytest.approx((7 - np.log(1e8)) / 2.5)


def test_the_norm_is_saved_with_the_model(tmp_path):
    before = tiny(CONVOLUTIONS, feature_norm="peak")
    again = Ctc.build(options(CONVOLUTIONS), context((), source=saved(before, tmp_path)))
    assert again.processor.feature_extractor.feature_norm == "peak"
    assert torch.equal(output(again, rows(again)).logits, output(before, rows(before)).logits)


def test_fine_tuning_refuses_sizes_of_the_sound_that_are_others(tmp_path):
    saved(tiny(CONVOLUTIONS), tmp_path)
    for key, value in {"n_mels": 20, "hop_length": 80, "subsampling_channels": 4}.items():
        with pytest.raises(UserError, match=rf"model.{key}: {value}, but .* leave it out"):
            Ctc.build(options(CONVOLUTIONS, pretrained=str(tmp_path), **{key: value}), context())


@every_encoder
def test_fine_tuning_takes_the_dropout_that_is_named(encoder, tmp_path):
    saved(tiny(encoder), tmp_path)
    tuned = Ctc.build(options(encoder, pretrained=str(tmp_path), dropout=0.25), context())
    inner = getattr(tuned.model.config, "encoder_config", tuned.model.config)
    names = ("head_dropout",) if encoder == "whisper" else DROPOUTS
    found = {getattr(inner, name) for name in names if hasattr(inner, name)}
    assert found == {0.25}
    rates = {module.p for module in tuned.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.25, 0.0}  # wav2vec2 has one more, for its features


@every_encoder
def test_every_adapter_of_lora_learns(encoder):
    from training.engine.freezing import apply

    architecture = tiny(encoder)
    model, _ = apply(architecture, mode="lora")
    model.train()
    model(**model_inputs(architecture.collate(rows(architecture)))).loss.backward()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert [name for name, value in trained.items() if value.grad is None] == []


def test_a_run_without_transcripts_has_no_vocabulary():
    with pytest.raises(UserError, match=r"model.vocabulary"):
        tiny(texts=())


def test_impossible_sizes_are_the_users_mistake():
    with pytest.raises(ValueError, match="must be a multiple of num_heads"):
        options(num_heads=3)
    with pytest.raises(UserError, match=r"model.sizes.conv_sizes"):
        tiny("wav2vec2", sizes={"conv_sizes": [1]})
    with pytest.raises(ValueError, match=r"conv_kernel \(4\) must be an odd number"):
        options("transformer", conv_kernel=4)
    with pytest.raises(ValueError, match=r"conv_kernel \(5\) is .* for encoder: transformer"):
        options("fastconformer", conv_kernel=5)
    with pytest.raises(ValueError, match="wav2vec2 takes samples"):
        options("wav2vec2", feature_norm="clip")
    with pytest.raises(ValueError, match="sizes: the Transformer has"):
        options("transformer", sizes={"layerdrop": 0.1})


@every_encoder
def test_groups_name_parameters_that_are_there(encoder):
    from training.engine.freezing import apply

    architecture = tiny(encoder)
    _, plan = apply(architecture, freeze_encoder=True, freeze_feature_encoder=True)
    left = {name for name, value in architecture.model.named_parameters() if value.requires_grad}
    head = "lm_head" if encoder == "wav2vec2" else "ctc_head"
    assert left == {f"{head}.weight", f"{head}.bias"}
    assert plan.frozen


def test_the_vocabulary_is_that_of_the_training_texts_and_the_languages():
    assert set(tiny(languages=("en",), texts=("đá",)).encode.tokenizer.tokens) == {
        *"abcdefghijklmnopqrstuvwxyzđá",
        "▁",
        "<blank>",
    }
    assert len(TEXTS) == 3


@pytest.mark.parametrize("width", [1, 4])
def test_a_checkpoint_is_scored_by_the_search_of_the_final_evaluation(width):
    """``evaluation.num_beams`` decides both: the same frames are read in the same way."""
    architecture = tiny()
    while_training = with_frame_decoder(architecture, DecodeOptions(beam_width=width))
    assert while_training == SearchOptions(beam_width=width).resolved(architecture)
