from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.language import accuracy, is_vietnamese_syllable, tag_words

SYLLABLES = [
    "anh",
    "không",
    "người",
    "nghiêng",
    "quyển",
    "khuya",
    "quýt",
    "huỳnh",
    "thuở",
    "nguyệt",
    "gì",
    "giếng",
    "giữa",
    "già",
    "ghế",
    "nghề",
    "kỹ",
    "cười",
    "phở",
    "xoong",
    "trường",
    "được",
    "việc",
    "yêu",
    "yến",
    "uống",
    "ướt",
    "oẳn",
    "ếch",
    "thuyền",
    "quốc",
    "mạng",
    "xã",
    "hội",
    "hạn",
    "chót",
    "máy",
    "tính",
    "ngoằn",
    "quẹo",
    "rượu",
]
NOT_SYLLABLES = [
    "meeting",
    "deadline",
    "laptop",
    "cat",
    "hot",
    "chat",
    "team",
    "free",
    "job",
    "zoom",
    "window",
    "video",
    "street",
    "plan",
    "class",
    "ship",
    "it's",
    "cạ́t",
    "kà",
    "cê",
    "ngi",
    "ghan",
    "that",
    "stop",
    "test",
    "check",
    "map",
    "tik",
    "tốk",
    "đắk",
    "cácc",
]


@pytest.mark.parametrize("word", SYLLABLES)
def test_syllables_parse_in_any_case_and_form(word):
    assert is_vietnamese_syllable(word)
    assert is_vietnamese_syllable(word.upper())
    assert is_vietnamese_syllable(unicodedata.normalize("NFD", word))


@pytest.mark.parametrize("word", NOT_SYLLABLES)
def test_what_is_no_syllable_does_not_parse(word):
    assert not is_vietnamese_syllable(word)


def test_stops_take_only_two_tones():
    assert is_vietnamese_syllable("hát") and is_vietnamese_syllable("hạt")
    assert not any(is_vietnamese_syllable(word) for word in ("hat", "hàt", "hảt", "hãt"))


@pytest.mark.parametrize(
    ("sentence", "tags"),
    [
        ("em xem kênh TikTok của em hay lắm", "v v v e v v v v"),
        ("the meeting is on Monday nha anh", "e e e e e v v"),
        ("có một cái deadline to nhất", "v v v e v v"),
        ("thank you so much anh Nam", "e e e e v v"),
        ("have a good day", "e e e e"),
        ("anh mua 3 cái laptop", "v v v v e"),
        ("đi ăn phở với em nhé", "v v v v v v"),
        ("OK, mình sẽ check mail!", "e v v e e"),
    ],
)
def test_sentences(sentence, tags):
    names = {"v": "vi", "e": "en"}
    assert tag_words(sentence.split()) == tuple(names[tag] for tag in tags.split())


def test_other_scripts_are_neither():
    assert tag_words(["xin", "안녕", "chào"]) == ("vi", "other", "vi")
    assert tag_words([]) == ()


def test_accuracy_counts_against_gold():
    pairs = [(["em", "meeting", "to"], ["vi", "en", "en"]), (["3", "anh"], ["other", "vi"])]
    assert tag_words(pairs[0][0]) == ("vi", "en", "en") or tag_words(pairs[0][0]) == ("vi", "en", "vi")
    wrong = [(["em", "meeting"], ["en", "en"])]
    assert accuracy(wrong) == {
        "words": 2,
        "accuracy": 50.0,
        "english_recall": 50.0,
        "english_precision": 100.0,
    }
    assert accuracy(pairs)["words"] == 4
    assert accuracy([])["accuracy"] is None


@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_words_get_one_tag_each(words):
    tags = tag_words(words)
    assert len(tags) == len(words) and set(tags) <= {"vi", "en", "other"}
