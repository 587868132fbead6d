from __future__ import annotations

import pytest
from eval_assets import example, said

from training.data.example import TRANSCRIBE
from training.evaluation.errors import (
    confusions,
    degenerate,
    error_shares,
    has_loop,
    inserted_without_speech,
    word_pairs,
)
from training.evaluation.rows import join
from training.evaluation.word_alignment import align_words


def test_shares_of_hand_counted_errors():
    shares = error_shares(align_words(["a b c d", "e f"], ["a x c", "e f g h"]))
    # b→x, d left out, g and h put in
    assert shares["errors"] == 4 and shares["reference_words"] == 6 and shares["hits"] == 4
    assert shares["substitutions"] == {"count": 1, "share": 25.0}
    assert shares["deletions"] == {"count": 1, "share": 25.0}
    assert shares["insertions"] == {"count": 2, "share": 50.0}
    assert error_shares(align_words(["a"], ["a"]))["deletions"]["share"] is None


def test_confusions_are_counted_and_ordered():
    found = confusions(align_words(["ma ba", "ma ca", "đi", "x"], ["má ba", "má cá", "", "x y"]), top=2)
    assert found["substitutions"] == [
        {"reference": "ma", "hypothesis": "má", "count": 2},
        {"reference": "ca", "hypothesis": "cá", "count": 1},
    ]
    assert found["deletions"] == [{"word": "đi", "count": 1}]
    assert found["insertions"] == [{"word": "y", "count": 1}]


def test_word_pairs_cover_every_position():
    pairs = list(word_pairs(align_words(["a b c"], ["a x"])))
    assert sorted(pair[1] for pair in pairs) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("em em em em", True),
        ("em em em", False),
        ("đi xem đi xem đi xem", True),
        ("đi xem đi xem thôi", False),
        ("x một hai ba một hai ba một hai ba y", True),
        ("aaaaaaaa", True),
        ("hahaha", False),
        ("hahahahahahahaha", True),
        ("", False),
        ("một hai ba bốn năm sáu bảy", False),
    ],
)
def test_loops(text, expected):
    assert has_loop(text.split()) is expected


def test_loops_and_empties_count_only_where_the_reference_has_none():
    examples = [
        example("a", "một hai"),
        example("b", "ha ha ha ha ha"),
        example("c", "ba"),
        example("d", "!"),
    ]
    hypotheses = [said("a", "một một một một"), said("b", "ha ha ha ha ha"), said("c", "..."), said("d", "")]
    found = degenerate(join(examples, hypotheses)[TRANSCRIBE])
    assert found["looping"] == {"count": 1, "share": 25.0, "first_ids": ["a"]}
    assert found["empty"] == {"count": 1, "share": 25.0, "first_ids": ["c"]}


def test_words_on_silence_noise_and_music_are_counted():
    found = inserted_without_speech(
        {"silence": ["", "."], "noise": ["Xin chào", "xin chào!", "a a a a"]}, "vi"
    )
    assert found["silence"]["words"] == 0 and found["silence"]["clips_with_words"] == 0
    noise = found["noise"]
    assert (noise["clips"], noise["words"], noise["clips_with_words"], noise["looping_clips"]) == (3, 8, 3, 1)
    assert noise["most_frequent"][0] == {"text": "xin chào", "count": 2}
