"""Decoding of CTC frames: against sums over all paths, by hand, and what it says of times and confidence."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.decoding.ctc_decoding import CtcDecoder, greedy
from training.decoding.ctc_vocabulary import CtcVocabulary, collapse
from training.decoding.ngram.counts import EOS
from training.decoding.ngram.kneser_ney import estimate
from training.decoding.prefix_beam import Pruning, prefix_beam_search
from training.decoding.word_scores import Fusion, HotWords, Together, parse_hot_words

CHARACTERS = CtcVocabulary(("<blank>", "a", "b", " "))
PIECES = CtcVocabulary(("▁a", "b", "▁b", ""), blank=3)
EVERYTHING = Pruning.none(100_000)


def frames(count: int, vocabulary: CtcVocabulary, seed: int, sharp: float = 2.0) -> np.ndarray:
    """Random log probabilities ``[count, vocabulary]``."""
    logits = np.random.default_rng(seed).standard_normal((count, len(vocabulary.tokens))) * sharp
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def all_paths(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """log p of every label sequence: each path on its own, summed by what it collapses to."""
    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        value = sum(float(frame[i]) for frame, i in zip(log_probs, path, strict=True))
        sums[tuple(collapse(path, blank))] += math.exp(value)
    return {ids: math.log(value) for ids, value in sums.items()}


def word_score(scorer: Fusion | Together, words: list[str]) -> float:
    """All of a sentence at once."""
    total, state = 0.0, scorer.start
    for word in words:
        value, state = scorer.word(state, word)
        total += value
    return total + scorer.end(state)


def test_times_count_from_the_clips_own_start_and_never_lie_outside_it() -> None:
    """10 frames of 0.1 s, the first and last two of them silence put around the clip: 0.6 s."""
    path = [0, 1, 1, 0, 0, 3, 2, 0, 2, 2]
    log_probs = np.log(np.full((10, 4), 0.01) + 0.96 * np.eye(4)[path]).astype(np.float32)
    bare, edged = CtcDecoder(CHARACTERS, 0.1), CtcDecoder(CHARACTERS, 0.1, edge_seconds=0.2)
    assert [(w.text, w.start, w.end) for w in bare(log_probs).words] == [
        ("a", pytest.approx(0.1), pytest.approx(0.3)),
        ("bb", pytest.approx(0.6), pytest.approx(1.0)),
    ]
    assert [(w.text, w.start, w.end) for w in edged(log_probs).words] == [
        ("a", pytest.approx(0.0), pytest.approx(0.1)),
        ("bb", pytest.approx(0.4), pytest.approx(0.6)),
    ]


@pytest.mark.parametrize("vocabulary", [CHARACTERS, PIECES])
@pytest.mark.parametrize("seed", range(4))
def test_beam_search_sums_over_all_paths(vocabulary: CtcVocabulary, seed: int) -> None:
    log_probs = frames(6, vocabulary, seed)
    expected = all_paths(log_probs, vocabulary.blank)
    found = {beam.ids: beam.frames for beam in prefix_beam_search(log_probs, vocabulary, EVERYTHING)}
    assert found.keys() == expected.keys()
    assert all(found[ids] == pytest.approx(expected[ids], abs=1e-6) for ids in expected)
    assert sum(map(math.exp, found.values())) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), sharp=st.floats(0.1, 6.0))
def test_best_of_beam_search_is_best_of_all_paths(seed: int, count: int, sharp: float) -> None:
    log_probs = frames(count, CHARACTERS, seed, sharp)
    expected = all_paths(log_probs, 0)
    best = prefix_beam_search(log_probs, CHARACTERS, EVERYTHING)[0]
    assert best.frames == pytest.approx(max(expected.values()), abs=1e-6)


@pytest.mark.parametrize("vocabulary", [CHARACTERS, PIECES])
@pytest.mark.parametrize("seed", range(4))
def test_fusion_equals_brute_force(vocabulary: CtcVocabulary, seed: int) -> None:
    model = estimate([["a", "b"], ["ab", "a"], ["b", "b", "ab"], ["aa"]], 2).model
    scorer = Together((Fusion(model, alpha=0.8, beta=0.3, unknown=-2.0), HotWords({"ba": 1.5, "a b": 0.7})))
    log_probs = frames(5, vocabulary, seed)
    expected = {
        ids: value + word_score(scorer, vocabulary.text(ids).split())
        for ids, value in all_paths(log_probs, vocabulary.blank).items()
    }
    found = prefix_beam_search(log_probs, vocabulary, EVERYTHING, scorer)
    assert len(found) == len(expected)
    assert all(beam.score == pytest.approx(expected[beam.ids], abs=1e-5) for beam in found)
    assert found[0].score == pytest.approx(max(expected.values()), abs=1e-5)
    assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)


def test_pruned_search_finds_what_the_best_path_misses() -> None:
    """The textbook case: "" is the best path, but the paths of "a" together are likelier."""
    log_probs = np.log(np.array([[0.6, 0.4, 1e-9, 1e-9], [0.6, 0.4, 1e-9, 1e-9]], dtype=np.float32))
    assert greedy(log_probs, 0) == []
    beams = prefix_beam_search(log_probs, CHARACTERS, Pruning(width=4))
    assert CHARACTERS.text(beams[0].ids) == "a"
    assert math.exp(beams[0].frames) == pytest.approx(0.64, abs=1e-3)


def test_doubled_letters_need_a_blank() -> None:
    path = [1, 1, 0, 1, 2, 2]
    log_probs = np.log(np.full((6, 4), 0.01, dtype=np.float32))
    log_probs[np.arange(6), path] = math.log(0.97)
    decoder = CtcDecoder(CHARACTERS, 0.04)
    assert decoder(log_probs).text == "aab"
    assert CtcDecoder(CHARACTERS, 0.04, Pruning(width=8))(log_probs).text == "aab"


def spelled(text: str, vocabulary: CtcVocabulary, confidence: float = 0.9) -> np.ndarray:
    """Frames that spell the text: each label once, a blank after each."""
    path = [i for letter in text for i in (vocabulary.tokens.index(letter), vocabulary.blank)]
    rest = (1 - confidence) / (len(vocabulary.tokens) - 1)
    log_probs = np.full((len(path), len(vocabulary.tokens)), math.log(rest), dtype=np.float32)
    log_probs[np.arange(len(path)), path] = math.log(confidence)
    return log_probs


@pytest.mark.parametrize("pruning", [None, Pruning(width=5)])
def test_words_have_the_times_and_confidence_of_their_frames(pruning: Pruning | None) -> None:
    log_probs = spelled("ab a", CHARACTERS)
    log_probs[6] = np.log([0.3, 0.6, 0.05, 0.05])  # the last letter is less sure
    said = CtcDecoder(CHARACTERS, 0.1, pruning)(log_probs)
    assert [(word.text, round(word.start, 3), round(word.end, 3)) for word in said.words] == [
        ("ab", 0.0, 0.3),
        ("a", 0.6, 0.7),
    ]
    assert said.words[0].confidence == pytest.approx(0.9, abs=1e-5)
    assert said.words[1].confidence == pytest.approx(0.6, abs=1e-5)
    assert said.confidence == pytest.approx(math.sqrt(0.9 * 0.6), abs=1e-5)


# Trap 21.
def test_confidence_is_the_sounds_whatever_the_scorer_says() -> None:
    log_probs = spelled("ab", CHARACTERS)
    plain = CtcDecoder(CHARACTERS, 0.1, Pruning(width=5))(log_probs)
    pushed = CtcDecoder(CHARACTERS, 0.1, Pruning(width=5), HotWords({"ab": 20.0}))(log_probs)
    assert pushed.alternatives[0].score > plain.alternatives[0].score + 19
    assert pushed.words == plain.words


def test_a_language_model_mends_a_misheard_word() -> None:
    model = estimate([["aab", "ab"], ["aab", "ab"], ["ab", "aab"]], 2).model
    log_probs = spelled("aab bb", CHARACTERS, 0.96)
    log_probs[8] = np.log([0.02, 0.43, 0.53, 0.02])  # "b" a little likelier than "a"
    assert CtcDecoder(CHARACTERS, 0.04, Pruning(width=8))(log_probs).text == "aab bb"
    fused = CtcDecoder(CHARACTERS, 0.04, Pruning(width=8), Fusion(model))(log_probs)
    assert fused.text == "aab ab"


def test_hot_words_win_where_they_are_nearly_heard_and_nowhere_else() -> None:
    log_probs = spelled("ab b", CHARACTERS, 0.97)
    log_probs[2] = np.log([0.02, 0.35, 0.61, 0.02])
    hot = HotWords({"aa": 3.0})
    assert CtcDecoder(CHARACTERS, 0.04, Pruning(width=8))(log_probs).text == "ab b"
    unheard = CtcDecoder(CHARACTERS, 0.04, Pruning(width=8), hot)(spelled("b b", CHARACTERS, 0.97))
    assert unheard.text == "b b"
    log_probs[1] = np.log([0.97, 0.01, 0.01, 0.01])
    assert CtcDecoder(CHARACTERS, 0.04, Pruning(width=8), hot)(log_probs).text == "aa b"


def test_hot_phrase_counts_once_when_it_is_whole() -> None:
    hot = HotWords({"ab ba": 4.0})
    value, state = hot.word(hot.start, "ab")
    assert value == 0.0
    assert hot.pending(state, "b") == pytest.approx(4.0 * 4 / 5)
    assert hot.pending(state, "x") == 0.0
    assert hot.word(state, "ba")[0] == 4.0
    assert hot.word(state, "bab")[0] == 0.0


def test_unknown_words_are_penalised_once() -> None:
    model = estimate([["ab", "b"]], 1).model
    fusion = Fusion(model, alpha=0.5, beta=0.0, unknown=-4.0)
    assert fusion.pending((), "a") == 0.0
    assert fusion.pending((), "aa") == -2.0
    assert fusion.word((), "aa")[0] == pytest.approx(0.5 * (model.score((), "aa")[0] - 4.0))
    assert fusion.end(()) == pytest.approx(0.5 * model.score((), EOS)[0])


@pytest.mark.parametrize("pruning", [None, Pruning(width=5)])
def test_no_frames_and_silence_say_nothing(pruning: Pruning | None) -> None:
    decoder = CtcDecoder(CHARACTERS, 0.04, pruning)
    for log_probs in (np.zeros((0, 4), dtype=np.float32), np.log(np.array([[0.97, 0.01, 0.01, 0.01]] * 5))):
        said = decoder(log_probs)
        assert (said.text, said.words, said.confidence) == ("", (), None)


def test_vocabularies_tell_where_words_begin() -> None:
    assert CtcVocabulary(("", "a", "|", "b")).text([1, 2, 3, 1]) == "a ba"
    assert CtcVocabulary(("", "▁xin", "▁ch", "ào", " ")).text([1, 2, 3]) == "xin chào"
    assert CtcVocabulary(("", "a", "b")).text([1, 2]) == "ab"
    assert CHARACTERS.text([3, 1, 3, 3, 2, 3]) == "a b"
    assert CHARACTERS.words([3, 1, 3, 2]) == [("a", [1]), ("b", [3])]


def test_hot_words_from_arguments_and_files(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "hot.txt"
    path.write_text("deadline:5\n\nhọp nhóm\n", encoding="utf8")
    assert parse_hot_words(["TikTok:2.5", f"@{path}"]) == {"TikTok": 2.5, "deadline": 5.0, "họp nhóm": 8.0}
    with pytest.raises(UserError, match=r"a:b"):
        parse_hot_words(["a:b"])
    path.write_text("ok\nx:y\n", encoding="utf8")
    with pytest.raises(UserError, match=r"hot\.txt:2"):
        parse_hot_words([f"@{path}"])
