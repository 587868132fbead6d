"""Word times out of pointers: the best path against every path, order, bounds, times between frames."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.common.monotone import best_path, word_times

FRAME = 0.02
seeds = st.integers(0, 2**32 - 1)


def every_path(words: int, frames: int):
    """All rows of first_1 <= last_1 < first_2 <= last_2 …"""
    if not words:
        yield ()
        return
    # A word of first and last frame becomes two different places where every word is made one longer.
    for places in combinations(range(frames + words), 2 * words):
        yield tuple((places[2 * i] - i, places[2 * i + 1] - i - 1) for i in range(words))


def total(path, starts, ends) -> float:
    return sum(starts[i, first] + ends[i, last] for i, (first, last) in enumerate(path))


def numbers(seed: int, words: int, frames: int) -> np.ndarray:
    """Scores of starts and ends; few values, so that many paths are equally good."""
    return np.random.default_rng(seed).integers(-3, 1, (2, words, frames)).astype(float)


def test_every_path_is_that():
    assert list(every_path(1, 2)) == [((0, 0),), ((0, 1),), ((1, 1),)]
    assert list(every_path(2, 2)) == [((0, 0), (1, 1))]
    assert len(list(every_path(2, 4))) == 15
    for path in every_path(3, 6):
        flat = np.array(path)
        assert (flat[:, 0] <= flat[:, 1]).all() and (flat[1:, 0] > flat[:-1, 1]).all()
        assert flat.min() >= 0 and flat.max() < 6


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(0, 3))
def test_the_best_path_is_the_best_of_all(seed, words, more):
    starts, ends = numbers(seed, words, words + more)
    path = best_path(starts, ends)
    possible = {one: total(one, starts, ends) for one in every_path(*starts.shape)}
    assert possible[tuple(map(tuple, path.tolist()))] == max(possible.values())


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_more_words_than_frames_share_frames_in_order(seed):
    starts, ends = numbers(seed, words=3, frames=2)
    best = max(
        total(np.reshape(places, (3, 2)), starts, ends)
        for places in combinations_with_replacement(range(2), 6)
    )
    path = best_path(starts, ends)
    assert (np.diff(path.ravel()) >= 0).all()
    assert total(path, starts, ends) == best


def test_a_word_gives_way_to_a_surer_one():
    """Both want frame 1; the second is surer of it, so the first takes its own second choice."""
    starts = np.log([[0.3, 0.7, 0.0001, 0.0001], [0.0001, 0.99, 0.0001, 0.0001]])
    ends = np.log([[0.4, 0.6, 0.0001, 0.0001], [0.0001, 0.0001, 0.0001, 0.99]])
    assert best_path(starts, ends).tolist() == [[0, 0], [1, 3]]


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 8), st.integers(1, 12), st.floats(0.3, 1.0))
def test_times_are_in_order_in_the_clip_and_words_a_frame_long_where_there_is_room(
    seed, words, frames, share
):
    rng = np.random.default_rng(seed)
    starts, ends = rng.uniform(-50, 0, (2, words, frames)).astype(np.float32)
    starts[rng.random(starts.shape) < 0.2] = ends[rng.random(ends.shape) < 0.2] = -np.inf
    seconds = frames * FRAME * share
    times = word_times(starts, ends, FRAME, seconds)
    assert times.shape == (words, 2) and times.dtype == np.float64
    assert (np.diff(times.ravel()) >= -1e-12).all()
    assert ((times >= 0) & (times <= seconds)).all()
    if words:
        assert (times[:, 1] - times[:, 0]).min() >= min(FRAME, seconds / words) - 1e-9


def certain(rows: list[dict[int, float]], frames: int) -> np.ndarray:
    result = np.zeros((len(rows), frames))
    for word, row in enumerate(rows):
        for frame, probability in row.items():
            result[word, frame] = probability
    with np.errstate(divide="ignore"):
        return np.log(result)


def test_a_time_between_two_frames_is_found_exactly():
    """A start is the beginning of its frame, an end the end of it; a quarter of the way is three to one."""
    starts = certain([{1: 0.75, 2: 0.25}, {6: 1.0}], 10)
    ends = certain([{4: 0.5, 5: 0.5}, {9: 1.0}], 10)
    times = word_times(starts, ends, FRAME, 10 * FRAME)
    np.testing.assert_allclose(times, [[1.25 * FRAME, 5.5 * FRAME], [6 * FRAME, 10 * FRAME]], atol=1e-12)


def test_far_away_probability_does_not_move_a_time():
    starts, ends = certain([{1: 0.6, 8: 0.4}], 10), certain([{3: 0.6, 9: 0.4}], 10)
    times = word_times(starts, ends, FRAME, 10 * FRAME)
    np.testing.assert_allclose(times, [[FRAME, 4 * FRAME]], atol=1e-12)


def test_two_words_that_contradict_each_other_meet_halfway():
    """The first ends half a frame after the second starts, as far as the probabilities around them say."""
    starts = certain([{0: 1.0}, {4: 0.5, 5: 0.5}], 10)
    ends = certain([{3: 0.45, 4: 0.1, 5: 0.45}, {9: 1.0}], 10)
    (_, end), (start, _) = word_times(starts, ends, FRAME, 10 * FRAME)
    assert end == start == pytest.approx(4.75 * FRAME)


def test_no_words_have_no_times():
    assert word_times(np.zeros((0, 5)), np.zeros((0, 5)), FRAME, 0.1).shape == (0, 2)


@pytest.mark.parametrize(
    ("frames", "seconds", "message"),
    [
        (0, 0.1, r"2 words cannot be aligned with 0 frames \(0.1 s\)"),
        (3, 0.0, r"2 words cannot be aligned with 3 frames \(0.0 s\)"),
    ],
)
def test_words_need_a_frame(frames, seconds, message):
    with pytest.raises(ValueError, match=message):
        word_times(np.zeros((2, frames)), np.zeros((2, frames)), FRAME, seconds)


def test_starts_and_ends_belong_together():
    with pytest.raises(ValueError, match=r"starts \(2, 3\) and ends \(2, 4\) differ"):
        word_times(np.zeros((2, 3)), np.zeros((2, 4)), FRAME, 1.0)
