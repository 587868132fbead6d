"""Times of words from attention and the level of the sound: pauses belong to no word."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from whisper_assets import TRANSCRIPT, example, features, noise, tiny

from training.alignment.labelling import record_of
from training.alignment.teacher import Clip, Timed
from training.alignment.whisper import WhisperTeacher, certain_times
from training.data.example import TRANSCRIBE, SpokenWord
from training.decoding import attention_times, pause_path
from training.decoding.attention_alignment import AttentionAligner
from training.decoding.attention_times import LEAD, Reading, spoken_times, times_and_shares, word_bounds
from training.decoding.pause_path import PAUSE_COST, word_spans
from training.decoding.sound_level import level_track, pause_threshold
from training.models.architecture import Architecture, DecodeOptions
from training.models.common.log_mels import log_mel

RATE = 16_000
EXTRACTOR = WhisperFeatureExtractor()


def score_of(owners: Sequence[int], tokens: np.ndarray, pause: np.ndarray, word_of: Sequence[int]) -> float:
    """The score of a path; -inf where it is none. Tokens are numbered, a pause is -1."""
    spoken = [one for one, _ in itertools.groupby(owners)]
    if [one for one in spoken if one >= 0] != list(range(len(tokens))):
        return -math.inf
    total = 0.0
    for frame, one in enumerate(owners):
        total += pause[frame] if one < 0 else tokens[one, frame]
    for before, one, after in zip([None, *spoken], spoken, [*spoken[1:], None], strict=False):
        if one == -1 and before is not None:
            if after is not None and word_of[before] == word_of[after]:
                return -math.inf  # inside a word nobody pauses
            total -= PAUSE_COST
    return total


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 2), min_size=1, max_size=2),
    extra=st.integers(0, 3),
)
def test_no_other_path_scores_better(seed: int, sizes: list[int], extra: int) -> None:
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    frames = count + extra
    tokens, pause = 3 * rng.standard_normal((count, frames)), 3 * rng.standard_normal(frames)
    word_of = [word for word, size in enumerate(sizes) for _ in range(size)]
    every = itertools.product(range(-1, count), repeat=frames)
    best = max(every, key=lambda owners: score_of(owners, tokens, pause, word_of))
    wanted = []
    for word in range(len(sizes)):
        mine = [frame for frame, one in enumerate(best) if one >= 0 and word_of[one] == word]
        wanted.append([mine[0], mine[-1] + 1])
    assert word_spans(tokens, pause, sizes).tolist() == wanted


def test_more_tokens_than_frames_have_no_path() -> None:
    with pytest.raises(ValueError, match="3 tokens need as many frames, and the clip has 2"):
        word_spans(np.zeros((3, 2)), np.zeros(2), [2, 1])


def bursts(words: Sequence[tuple[float, float]], seconds: float, floor_db: float = -65.0) -> np.ndarray:
    """Log-mels of noise at -20 dB in the ``words``, at the floor elsewhere."""
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(round(seconds * RATE)) * 10 ** (floor_db / 20)
    for start, end in words:
        first, stop = round(start * RATE), round(end * RATE)
        wave[first:stop] += 0.1 * rng.standard_normal(stop - first)
    return log_mel(EXTRACTOR, wave.astype(np.float32))[:, : math.ceil(seconds * 100)]


def attended(words: Sequence[tuple[float, float]], sizes: Sequence[int], seconds: float) -> np.ndarray:
    """Attention of one head, float32 ``[1, tokens + 1, frames]``: the tokens share their word, `LEAD` frames too early."""
    frames = math.ceil(seconds * 50)
    weights = np.full((1, sum(sizes) + 1, frames), 1e-3, dtype=np.float32)
    for (start, end), (first, stop) in zip(words, word_bounds(sizes), strict=True):
        bounds = np.linspace(start * 50, end * 50, stop - first + 1).round().astype(int) - LEAD
        for token, (a, b) in enumerate(itertools.pairwise(bounds.tolist())):
            weights[0, first + token, max(0, a) : max(1, b)] = 1.0
    return weights


def reading(
    words: Sequence[tuple[float, float]], sizes: Sequence[int], seconds: float, floor_db: float = -65.0
) -> Reading:
    return Reading(attended(words, sizes, seconds), sizes, seconds, bursts(words, seconds, floor_db))


PAUSED = [(0.54, 0.81), (0.81, 1.2), (1.9, 2.33), (2.33, 2.5), (3.6, 3.9)]
SIZES = [1, 2, 3, 1, 2]


@pytest.mark.parametrize("floor", [-90.0, -65.0, -40.0])
def test_pauses_belong_to_no_word(floor: float) -> None:
    """Silence before the first word, between words and after the last one, at any level of the room."""
    found = np.array(spoken_times(reading(PAUSED, SIZES, 5.0, floor)))
    assert np.abs(found - np.array(PAUSED)).max() <= 0.025
    assert found[0, 0] > 0.5 and found[-1, 1] < 4.0


def test_two_kinds_of_silence_are_both_pauses() -> None:
    """Digital silence in a cut and a room's noise elsewhere: the noise is no speech."""
    one = reading(PAUSED, SIZES, 5.0)
    quietest = one.log_mel.min()
    one.log_mel[:, 260:340] = quietest - 0.5
    found = np.array(spoken_times(one))
    assert np.abs(found - np.array(PAUSED)).max() <= 0.025


def test_a_clip_without_a_pause_belongs_to_its_words() -> None:
    words = [(0.0, 0.4), (0.4, 0.9), (0.9, 1.5)]
    one = reading(words, [1, 2, 2], 1.5)
    level = level_track(one.log_mel)
    assert (level > pause_threshold(level)).mean() > 0.95
    assert np.abs(np.array(spoken_times(one)) - np.array(words)).max() <= 0.025


def test_a_short_dip_inside_speech_is_no_pause() -> None:
    """The closure of a plosive: 30 ms between two words."""
    words = [(0.5, 0.9), (0.93, 1.4)]
    found = spoken_times(reading(words, [2, 2], 2.0))
    assert found[1][0] - found[0][1] <= 0.05


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_any_attention_gives_words_in_order_and_inside_the_clip(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    seconds = float(rng.uniform(0.02 * (sum(sizes) + 1), 2.0))
    frames, mels = math.ceil(seconds * 50), math.ceil(seconds * 100)
    weights = rng.random((2, sum(sizes) + 1, frames)).astype(np.float32) ** 4
    sound = rng.normal(0.0, rng.uniform(0.0, 0.5), (80, mels)).astype(np.float32)
    times, own = times_and_shares(Reading(weights, sizes, seconds, sound))
    assert ((own >= 0) & (own <= 1 + 1e-6)).all()
    flat = [0.0, *itertools.chain(*times), seconds]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(flat))
    assert all(start < end for start, end in times)


def test_the_best_path_takes_little_time_for_a_long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the frames, whatever the number of states."""
    calls = []
    trace = pause_path._trace
    monkeypatch.setattr(
        pause_path, "_trace", lambda moves, last: (calls.append(moves.shape), trace(moves, last))[1]
    )
    word_spans(np.random.default_rng(0).random((200, 1500)), np.zeros(1500), [2] * 100)
    assert calls == [(1500, 301)]


@pytest.fixture
def any_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has learnt nothing places words too."""
    monkeypatch.setattr(attention_times, "LEAST_SHARE", 0.0)


def ready(**options: object) -> Architecture:
    architecture = tiny(**options)
    architecture.model.eval()
    return architecture


def batch_of(architecture: Architecture) -> dict[str, object]:
    return architecture.collate(features(architecture))


def test_the_aligner_reads_given_texts_and_leaves_out_what_cannot_be_placed(any_attention: None) -> None:
    architecture = ready()
    aligner = AttentionAligner.of(architecture)
    batch = batch_of(architecture)
    found = aligner(architecture.model, batch, ["xin  chào", TRANSCRIPT])
    assert [[word.text for word in row] for row in found] == [["xin", "chào"], TRANSCRIPT.split()]
    lengths = batch["clip_seconds"]
    for row, seconds in zip(found, lengths, strict=True):
        assert all(0 <= word.start < word.end <= seconds and 0 < word.confidence < 1 for word in row)
    states = architecture.model.encode(batch["input_features"])
    assert aligner(architecture.model, batch, ["xin  chào", TRANSCRIPT], states) == found
    alone = aligner(architecture.model, batch, ["xin chào", ""])
    assert alone[1] == () and [word.start for word in alone[0]] == [word.start for word in found[0]]
    assert aligner(architecture.model, batch, ["", ""]) == [(), ()]
    assert (
        aligner(architecture.model, batch, ["hôm " * 100, "xin"])[0] == ()
    )  # more than the decoder's positions
    short = architecture.collate(features(architecture, (0.3, 1.0)))
    assert [len(row) for row in aligner(architecture.model, short, ["hôm " * 16, "xin"])] == [0, 1]


@pytest.mark.parametrize("tasks", [("transcribe", "translate"), ("translate", "transcribe"), ("transcribe",)])
def test_the_prompt_is_that_of_the_transcript(tasks: tuple[str, ...], any_attention: None) -> None:
    """Whatever the order of the tasks in a batch."""
    architecture = ready()
    rows = features(architecture)
    wanted = AttentionAligner.of(architecture)(
        architecture.model, architecture.collate(rows), [TRANSCRIPT] * 2
    )
    batch = architecture.collate.with_tasks(tasks)(rows)
    assert AttentionAligner.of(architecture)(architecture.model, batch, [TRANSCRIPT] * 2) == wanted


def test_text_and_times_take_one_encoding(monkeypatch: pytest.MonkeyPatch, any_attention: None) -> None:
    architecture = ready()
    architecture = replace(architecture, aligner=AttentionAligner.of(architecture))
    calls = []
    encode = architecture.model.encode
    monkeypatch.setattr(architecture.model, "encode", lambda mels: (calls.append(1), encode(mels))[1])
    batch = batch_of(architecture)
    with torch.no_grad():
        decoded = architecture.decode(batch, DecodeOptions(max_new_tokens=8))
    assert len(calls) == 1
    plain = replace(architecture, aligner=None).decode(batch, DecodeOptions(max_new_tokens=8))
    for task, rows in decoded.items():
        assert [row.text for row in rows] == [row.text for row in plain[task]]
        assert all(row.words == () for row in plain[task])
    for row in decoded[TRANSCRIBE]:
        assert [word.text for word in row.words] == row.text.split()
    assert all(row.words == () for row in decoded["translate"])


def test_what_the_attention_does_not_show_has_no_time_of_its_own() -> None:
    """Words that no head attends to are placed somewhere; a teacher's utterance with such a word is dropped."""
    good = reading(PAUSED, SIZES, 5.0)
    assert certain_times(good) == spoken_times(good)
    flat = Reading(np.ones_like(good.weights), good.sizes, good.seconds, good.log_mel)
    assert [start == end for start, end in certain_times(flat)] == [
        True,
        True,
        False,
        True,
        True,
    ]  # 3 of 9 tokens
    words = tuple(
        SpokenWord(text=text, start=start, end=end, confidence=0.5)
        for text, (start, end) in zip("abcde", certain_times(flat), strict=True)
    )
    record = record_of(Clip(example("u", 5.0, transcribe="a b c d e"), noise(5.0)), Timed(words, ""))
    assert record.reason == "no_times" and "no time was found for 'a'" in record.detail
    with pytest.raises(ValueError, match="does not follow the sound"):
        spoken_times(flat)
    assert WhisperTeacher(ready()).aligner.place is certain_times
