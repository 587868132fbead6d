"""Times from Whisper's attention: transformers' own filter and warping, and the words of the reference."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter
from whisper_assets import TRANSCRIPT, example, noise, tiny

from training.alignment.teacher import Clip, NoTimes, Timed
from training.alignment.warping import first_frames
from training.alignment.whisper import WhisperTeacher, token_frames
from training.alignment.whisper_ctc import WhisperCtcTeacher
from training.decoding.attention_times import median_filter
from training.decoding.ctc_alignment import BEFORE_SECONDS
from training.decoding.viterbi import align
from training.models.whisper.reading import alignment_heads

FRAME = 0.02


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 30), width=st.sampled_from([1, 3, 5, 7]))
def test_the_median_filter_is_transformers(seed: int, length: int, width: int) -> None:
    values = np.random.default_rng(seed).standard_normal((2, 3, length)).astype(np.float32)
    wanted = _median_filter(torch.from_numpy(values)[None], width)[0].numpy()
    assert np.array_equal(median_filter(values, width), wanted)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 12), frames=st.integers(1, 40))
def test_the_warping_is_transformers(seed: int, tokens: int, frames: int) -> None:
    cost = np.random.default_rng(seed).standard_normal((tokens, frames))
    text, time = _dynamic_time_warping(cost)
    wanted = [int(time[text == token].min()) for token in range(tokens)]
    assert first_frames(cost).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(2, 8), extra=st.integers(4, 12))
def test_tokens_are_found_where_they_listened(seed: int, tokens: int, extra: int) -> None:
    """Each token listens to a stretch of its own, one after the other."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, extra + 1, tokens)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    weights = np.full((3, tokens, starts[-1]), 1e-3)
    for token, (start, stop) in enumerate(itertools.pairwise(starts)):
        weights[:, token, start:stop] = 1.0
    assert token_frames(weights, 3) == starts[:-1].tolist()


def clip(name: str, seconds: float, text: str = TRANSCRIPT, seed: int = 0) -> Clip:
    return Clip(example(name, seconds, transcribe=text), noise(seconds, seed))


def stock_times(teacher: WhisperTeacher, one: Clip) -> list[tuple[float, float]]:
    """The published way with stock parts alone: all attentions, transformers' filter and warping."""
    architecture, tokenizer = teacher.architecture, teacher.tokenizer
    features = architecture.encode(one.example, one.waveform)
    batch = architecture.collate([features])
    model = architecture.model
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(
            input_features=batch["input_features"],
            decoder_input_ids=batch["decoder_input_ids"][:, 0],
            output_attentions=True,
        )
    layers = [output.cross_attentions[layer][0, heads] for layer, heads in alignment_heads(model).items()]
    text = len(features["labels"]["transcribe"]) - features["prompt"]["transcribe"] - 1
    frames = math.ceil(features["seconds"] / FRAME)
    first = batch["prompt_length"] - 1
    weights = torch.cat(layers)[:, first : first + text + 1, :frames]
    weights = weights / weights.sum(dim=-1, keepdim=True)
    mean, deviation = weights.mean(dim=-2, keepdim=True), weights.std(dim=-2, keepdim=True, unbiased=False)
    smooth = _median_filter(((weights - mean) / deviation)[None], 7)[0].mean(dim=0)
    rows, columns = _dynamic_time_warping(-smooth.double().numpy())
    jumps = columns[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)] * FRAME
    sizes = [
        len(tokenizer(f" {w}", add_special_tokens=False).input_ids)
        for w in one.example.texts["transcribe"].split()
    ]
    ends = np.cumsum(sizes)
    return [(float(jumps[end - size]), float(jumps[end])) for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize("named", [None, [[0, 1], [1, 0]]])
def test_the_native_way_is_the_published_one(named: list[list[int]] | None) -> None:
    architecture = tiny(sizes={"max_source_positions": 1500})
    architecture.model.eval()
    architecture.model.generation_config.alignment_heads = named
    teacher = WhisperTeacher(architecture, native=True)
    assert alignment_heads(architecture.model) == ({1: [0, 1]} if named is None else {0: [1], 1: [0]})
    one = clip("u", 2.5)
    (found,) = teacher([one])
    assert isinstance(found, Timed)
    wanted = stock_times(teacher, one)
    assert [(word.start, word.end) for word in found.words] == [pytest.approx(pair) for pair in wanted]


def test_words_are_the_references_and_confidences_those_of_their_tokens() -> None:
    architecture = tiny()
    architecture.model.eval()
    teacher = WhisperTeacher(architecture)
    clips = [clip("u", 2.5), clip("v", 1.0, "bạn hôm nay", seed=1)]
    found = teacher(clips)
    for one, timed in zip(clips, found, strict=True):
        assert isinstance(timed, Timed)
        assert [word.text for word in timed.words] == one.example.texts["transcribe"].split()
        assert all(0 <= word.start <= word.end <= one.example.duration for word in timed.words)
        assert timed.recognised != one.example.texts["transcribe"]
    features = architecture.encode(clips[1].example, clips[1].waveform)
    batch = architecture.collate([features])
    with torch.no_grad():
        states = architecture.model.encode(batch["input_features"])
        hidden = architecture.model.model.decoder(
            input_ids=batch["decoder_input_ids"][:, 0], encoder_hidden_states=states
        ).last_hidden_state[0]
    prompt, labels = features["prompt"]["transcribe"], torch.tensor(features["labels"]["transcribe"])
    sure = architecture.model.proj_out(hidden).log_softmax(dim=-1)[torch.arange(len(labels)), labels]
    sizes = [
        len(teacher.tokenizer(f" {w}", add_special_tokens=False).input_ids) for w in ("bạn", "hôm", "nay")
    ]
    wanted = [part.mean().exp().item() for part in sure[prompt:-1].split(sizes)]
    alone = WhisperTeacher(architecture)([clips[1]])[0]
    assert isinstance(alone, Timed)
    assert [word.confidence for word in alone.words] == pytest.approx(wanted, rel=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    architecture = tiny()
    before = architecture.model.config._attn_implementation
    WhisperTeacher(architecture)([clip("u", 1.0)])
    assert architecture.model.config._attn_implementation == before
    assert all(not module._forward_hooks for module in architecture.model.modules())


def test_capitals_are_said_in_lower_case_and_kept_in_the_words() -> None:
    architecture = tiny()
    architecture.model.eval()
    (loud,), (low,) = (
        WhisperTeacher(architecture)([clip("u", 2.0, text)]) for text in ("BẠN HÔM NAY", "bạn hôm nay")
    )
    assert isinstance(loud, Timed) and isinstance(low, Timed)
    assert [word.text for word in loud.words] == ["BẠN", "HÔM", "NAY"]
    assert [replace(word, text=word.text.lower()) for word in loud.words] == list(low.words)


def test_what_whisper_cannot_hear_is_a_reason_and_stops_nothing() -> None:
    architecture = tiny()
    found = WhisperTeacher(architecture)(
        [clip("long", 31.0), clip("u", 1.0), clip("wordy", 1.0, "hôm " * 100)]
    )
    assert [type(one) for one in found] == [NoTimes, Timed, NoTimes]
    assert "31.000 s of audio, at most 30 s" in str(found[0])
    assert "label tokens, at most 64" in str(found[2])
    assert WhisperTeacher(architecture)([clip("long", 31.0)])[0].args == found[0].args  # type: ignore[union-attr]


def test_a_ctc_head_places_the_words() -> None:
    architecture = tiny(ctc_weight=1.0)
    architecture.model.eval()
    clips = [clip("u", 2.5), clip("v", 1.0, "Bạn hôm, nay", seed=1), clip("w", 1.0, "bạn zzz", seed=2)]
    found = WhisperCtcTeacher(architecture)(clips)
    features = [architecture.encode(one.example, one.waveform) for one in clips]
    batch = architecture.collate(features)
    with torch.no_grad():
        frames = (
            architecture.model.ctc_head(architecture.model.encode(batch["input_features"]))
            .log_softmax(dim=-1)
            .numpy()
        )
    characters = architecture.encode.ctc
    for row, (one, timed) in enumerate(zip(clips[:2], found, strict=False)):
        assert isinstance(timed, Timed)
        text = one.example.texts["transcribe"]
        places = align(frames[row, : round(one.example.duration / FRAME)], characters.encode(text), 0)
        assert [word.text for word in timed.words] == text.split()
        first = timed.words[0]
        start = places[0].start * FRAME
        assert first.start == pytest.approx(max(0.0, start - BEFORE_SECONDS), abs=1e-6)
        assert first.start < first.end <= one.example.duration
    assert str(found[2]) == "'zzz' cannot be written in the model's vocabulary: no token for z"
    heard = WhisperTeacher(architecture)(clips[:2])
    assert [timed.recognised for timed in found[:2]] == [timed.recognised for timed in heard]
