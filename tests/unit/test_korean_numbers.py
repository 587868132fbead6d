"""Numerals spelt out: a table by hand, and a reader of the Sino-Korean words that knows nothing of the speller."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.korean_numbers import COUNTERS, LIMIT, native, read_numerals, sino

DIGITS = {name: value for value, name in enumerate("영일이삼사오육칠팔구")}
PLACES = {"십": 10, "백": 100, "천": 1000}
GROUPS = {"만": 10**4, "억": 10**8, "조": 10**12, "경": 10**16}


def number_of(words: str) -> int:
    """The number that Sino-Korean words say."""
    total = group = digit = 0
    for character in words:
        if character in DIGITS:
            digit = DIGITS[character]
        elif character in PLACES:
            group, digit = group + (digit or 1) * PLACES[character], 0
        else:
            total, group, digit = total + (group + digit or 1) * GROUPS[character], 0, 0
    return total + group + digit


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "영"), (1, "일"), (10, "십"), (11, "십일"), (20, "이십"), (100, "백"), (101, "백일"), (110, "백십"),
        (1000, "천"), (2026, "이천이십육"), (10_000, "만"), (10_001, "만일"), (20_000, "이만"), (110_000, "십일만"),
        (1_000_000, "백만"), (10**8, "일억"), (10**8 + 10**4, "일억일만"), (120_000_000, "일억이천만"), (10**12, "일조"),
    ],
)  # fmt: skip
def test_sino_korean_numbers(number: int, words: str) -> None:
    assert sino(number) == words


@given(st.integers(0, 10**12))
def test_what_is_spelt_is_read_back(number: int) -> None:
    assert number_of(sino(number)) == number
    assert read_numerals(f"{number}원") == read_numerals(f"{number:,}원") == f"{sino(number)}원"


@given(st.integers(0, LIMIT - 1), st.integers(0, LIMIT - 1))
def test_two_numbers_are_never_spelt_alike(one: int, other: int) -> None:
    assert (sino(one) == sino(other)) == (one == other)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "한"), (4, "네"), (9, "아홉"), (10, "열"), (12, "열두"), (20, "스무"), (21, "스물한"), (50, "쉰"), (99, "아흔아홉")],
)  # fmt: skip
def test_native_numbers(number: int, words: str) -> None:
    assert native(number) == words


def test_numbers_without_words_are_refused() -> None:
    assert len({native(number) for number in range(1, 100)}) == 99
    for spell, number in ((sino, -1), (sino, LIMIT), (native, 0), (native, 100)):
        with pytest.raises(ValueError, match=str(number)):
            spell(number)


@pytest.mark.parametrize("counter", COUNTERS)
def test_counters_take_native_numbers_up_to_their_limit(counter: str) -> None:
    most = COUNTERS[counter]
    for number in range(2, most + 1):
        assert read_numerals(f"{number}{counter}") == native(number) + counter
        assert read_numerals(f"{number} {counter}를") == f"{native(number)} {counter}를"
    assert read_numerals(f"{most + 1}{counter}") == sino(most + 1) + counter
    assert read_numerals(f"0{counter}") == f"영{counter}"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("대학교 2학년 봄", "대학교 이학년 봄"),
        ("12명이 함께 10가구를", "열두명이 함께 열가구를"),
        ("3시 30분에", "세시 삼십분에"),
        ("14시", "십사시"),
        ("3시간 3개월 3개를 1달러 1달만", "세시간 삼개월 세개를 일달러 한달만"),
        ("1번째 2번째 1번", "첫번째 두번째 일번"),
        ("2019년 6월 10월 11월", "이천십구년 유월 시월 십일월"),
        ("6개월", "육개월"),
        ("1,000원 10퍼센트 3.05", "천원 십퍼센트 삼점영오"),
        ("2~3명", "두~세명"),
        ("010-1234-5678", "공일공-일이삼사-오육칠팔"),
        ("007", "공공칠"),
        ("100000000000000000000", "일" + "영" * 20),
        ("3:30 1/2 2019.3.1", "3:30 1/2 2019.3.1"),
        ("mp3 3D 3.5km K5.1", "mp3 3D 3.5km K5.1"),
        ("끝은 3.", "끝은 삼."),
        ("", ""),
    ],
)
def test_reading_in_sentences(text: str, read: str) -> None:
    assert read_numerals(text) == read


@given(st.text(st.sampled_from("0123456789.,:/~- 개시월명원번째이를mk"), max_size=30))
def test_reading_leaves_words_and_everything_but_digits_where_they_were(text: str) -> None:
    read = read_numerals(text)
    assert read_numerals(read) == read
    assert len(read.split()) == len(text.split())
    if not re.search("[0-9]", text):
        assert read == text
