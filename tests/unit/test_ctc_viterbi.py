"""Forced alignment with CTC: the best of all paths, and words with times from it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from ctc_assets import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from training.alignment.ctc import CtcTeacher
from training.alignment.teacher import Clip
from training.decoding.ctc_alignment import AFTER_SECONDS, BEFORE_SECONDS, CtcAligner, align_words
from training.decoding.ctc_vocabulary import collapse
from training.decoding.viterbi import Aligned, align
from training.models.abilities import CtcFrames
from training.models.ctc.tokenizer import CtcTokenizer

SECOND = 0.02


def random_frames(count: int, size: int, seed: int, sharp: float = 1.0) -> np.ndarray:
    logits = sharp * np.random.default_rng(seed).standard_normal((count, size))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def path_of(places: list[Aligned], ids: list[int], count: int, blank: int) -> list[int]:
    path = [blank] * count
    for place, i in zip(places, ids, strict=True):
        path[place.start : place.stop] = [i] * (place.stop - place.start)
    return path


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 6),
    ids=st.lists(st.integers(1, 2), min_size=1, max_size=4),
    sharp=st.floats(0.1, 5.0),
)
def test_no_path_that_spells_the_labels_is_better(
    seed: int, count: int, ids: list[int], sharp: float
) -> None:
    """All paths of a vocabulary of three are tried; where none spells the labels, that is said."""
    log_probs = random_frames(count, 3, seed, sharp)
    rows = np.arange(count)
    scores = {
        path: float(log_probs[rows, path].astype(np.float64).sum())
        for path in itertools.product(range(3), repeat=count)
        if collapse(path, 0) == ids
    }
    if not scores:
        with pytest.raises(ValueError, match=f"{len(ids)} labels cannot be aligned with {count} frames"):
            align(log_probs, ids, 0)
        return
    places = align(log_probs, ids, 0)
    found = path_of(places, ids, count, 0)
    assert collapse(found, 0) == ids
    assert log_probs[rows, found].astype(np.float64).sum() == pytest.approx(max(scores.values()), abs=1e-5)
    for place, i in zip(places, ids, strict=True):
        assert place.peak == log_probs[place.start : place.stop, i].max()


def test_equal_neighbours_need_a_blank_between_them() -> None:
    log_probs = np.log(np.array([[0.1, 0.9], [0.4, 0.6], [0.1, 0.9]]))
    assert [(one.start, one.stop) for one in align(log_probs, [1, 1], 0)] == [(0, 1), (2, 3)]


def test_no_frames_and_no_labels() -> None:
    assert align(np.zeros((3, 2)), [], 0) == []
    with pytest.raises(ValueError, match="1 labels cannot be aligned with 0 frames"):
        align(np.zeros((0, 2), dtype=np.float32), [1], 0)


def test_back_pointers_are_bytes() -> None:
    """Ten minutes with two thousand labels: 120 MB of steps, not gigabytes of scores."""
    from training.decoding.viterbi import _forward

    steps, _ = _forward(np.zeros((50, 4), dtype=np.float32), np.zeros(21, dtype=np.int64))
    assert steps.dtype == np.uint8 and steps.shape == (50, 21)


def frames_of(tokenizer: CtcTokenizer, edge: float = 0.0) -> CtcFrames:
    return CtcFrames(
        tokens=("", *tokenizer.tokens[1:]),
        blank=0,
        seconds_per_frame=SECOND,
        edge_seconds=edge,
        log_probs=lambda model, batch, states=None: [],
        speller=tokenizer,
    )


def spelled(tokenizer: CtcTokenizer, count: int, fires: dict[int, str], sure: float = 0.9) -> np.ndarray:
    """Frames of blanks, with one token at each frame of ``fires``."""
    probabilities = np.full((count, len(tokenizer)), (1 - sure) / (len(tokenizer) - 1))
    path = [tokenizer.tokens.index(fires[i]) if i in fires else 0 for i in range(count)]
    probabilities[np.arange(count), path] = sure
    return np.log(probabilities).astype(np.float32)


def test_words_reach_over_blanks_towards_their_neighbours_and_not_over_pauses() -> None:
    tokenizer = CtcTokenizer.characters(["ab c d"])
    log_probs = spelled(tokenizer, 60, {10: "a", 12: "b", 14: "▁", 16: "c", 17: "▁", 50: "d"})
    words = align_words(log_probs, "ab c d", frames_of(tokenizer))
    assert [word.text for word in words] == ["ab", "c", "d"]
    gap = (16 - 13) * SECOND  # between the first two words, shared in the proportion of their reaches
    share = BEFORE_SECONDS / (BEFORE_SECONDS + AFTER_SECONDS)
    wanted = [
        (10 * SECOND - BEFORE_SECONDS, 13 * SECOND + gap * (1 - share)),
        (16 * SECOND - gap * share, 17 * SECOND + AFTER_SECONDS),
        (50 * SECOND - BEFORE_SECONDS, 51 * SECOND + AFTER_SECONDS),
    ]
    assert [(word.start, word.end) for word in words] == [pytest.approx(pair) for pair in wanted]
    assert [word.confidence for word in words] == [pytest.approx(0.9, abs=1e-5)] * 3


def test_times_count_from_the_clip_and_stay_in_it() -> None:
    tokenizer = CtcTokenizer.characters(["a b"])
    log_probs = spelled(tokenizer, 40, {10: "a", 20: "▁", 29: "b"})
    words = align_words(log_probs, "a b", frames_of(tokenizer, edge=0.2))
    assert words[0].start == 0.0 and words[-1].end == pytest.approx(0.4)
    assert words[0].end == pytest.approx(11 * SECOND - 0.2 + AFTER_SECONDS)


def test_the_references_words_are_kept_as_they_are_written() -> None:
    """``l'eau`` is heard as two words, capitals and commas are not heard at all."""
    tokenizer = CtcTokenizer.characters(["l eau est"])
    fires = dict(zip(range(5, 40, 3), ["l", "▁", "e", "a", "u", "▁", "e", "s", "t"], strict=False))
    words = align_words(spelled(tokenizer, 50, fires), "L'eau, est!", frames_of(tokenizer))
    assert [word.text for word in words] == ["L'eau,", "est!"]
    share = BEFORE_SECONDS / (BEFORE_SECONDS + AFTER_SECONDS)
    gap = (23 - 18) * SECOND  # the mark between the words is no part of either
    assert words[1].start == pytest.approx(23 * SECOND - min(gap * share, BEFORE_SECONDS))


def test_pieces_that_begin_words() -> None:
    tokenizer = CtcTokenizer.bpe(["xin chào xin chào các bạn"] * 3, 40)
    ids = tokenizer.encode("xin chào")
    fires = {5 + 4 * n: tokenizer.tokens[i] for n, i in enumerate(ids)}
    words = align_words(spelled(tokenizer, 60, fires), "Xin chào", frames_of(tokenizer))
    first = tokenizer.encode("xin")
    assert [word.text for word in words] == ["Xin", "chào"]
    assert words[0].start == pytest.approx(5 * SECOND - BEFORE_SECONDS)
    assert words[1].start == pytest.approx((5 + 4 * len(first)) * SECOND, abs=BEFORE_SECONDS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ab zoo", "'zoo' cannot be written in the model's vocabulary: no token for o z"),
        ("ab – c", "'–' cannot be written in the model's vocabulary: no letters and no digits"),
        ("ab " * 30, "89 labels cannot be aligned with 60 frames"),
    ],
)
def test_what_cannot_be_aligned_is_named(text: str, reason: str) -> None:
    tokenizer = CtcTokenizer.characters(["ab c"])
    with pytest.raises(ValueError, match=reason):
        align_words(random_frames(60, len(tokenizer), 0), text, frames_of(tokenizer))


def test_the_teacher_hears_and_aligns_from_the_same_frames() -> None:
    from training.data.example import TRANSCRIBE
    from training.decoding.ctc_decoding import CtcDecoder
    from training.decoding.ctc_vocabulary import CtcVocabulary

    architecture = tiny("fastconformer")
    teacher = CtcTeacher(architecture)
    from ctc_assets import example, noise

    clips = [Clip(example(f"u{i}", 1.0 + i), noise(1.0 + i, i)) for i in range(2)]
    clips.append(Clip(example("short", 0.05), noise(0.05)))
    found = teacher(clips)
    assert isinstance(found[2], ValueError)
    for clip, timed in zip(clips[:2], found[:2], strict=True):
        assert not isinstance(timed, ValueError)
        assert [word.text for word in timed.words] == clip.example.texts[TRANSCRIBE].split()
        assert all(0 <= word.start < word.end <= clip.example.duration + 0.02 for word in timed.words)
        assert all(0 < word.confidence <= 1 for word in timed.words)
        assert not math.isnan(sum(word.confidence for word in timed.words))
    assert architecture.frames is not None
    rows = [architecture.encode(clip.example, clip.waveform) for clip in clips[:2]]
    decoder = CtcDecoder(CtcVocabulary(architecture.frames.tokens), architecture.frames.seconds_per_frame)
    heard = [
        decoder(frames).text
        for frames in architecture.frames.log_probs(architecture.model, architecture.collate(rows))
    ]
    assert [timed.recognised for timed in found[:2]] == heard


def test_a_loaded_models_align_gives_the_same_times_and_none_for_what_cannot_be_spelled() -> None:
    from ctc_assets import example, noise

    architecture = tiny("fastconformer")
    assert architecture.frames is not None
    rows = [architecture.encode(example(f"u{i}", 1.0 + i), noise(1.0 + i, i)) for i in range(2)]
    batch = architecture.collate(rows)
    text = example("u", 1.0).texts["transcribe"]
    found = CtcAligner(architecture.frames)(architecture.model, batch, [text, "漢字"])
    frames = architecture.frames.log_probs(architecture.model, batch)[0]
    assert found == [align_words(frames, text, architecture.frames), ()]
    assert [word.text for word in found[0]] == text.split()
