from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.normalize import normalizer, primary_language

LANGUAGES = ("vi", "en", "ko", "fr", None, "zu")


# Trap 16.
def test_vietnamese_tones_are_words():
    words = normalizer("vi").words("ma má mà mả mã mạ MÁ, mâ mă")
    assert words == ["ma", "má", "mà", "mả", "mã", "mạ", "má", "mâ", "mă"]
    assert len(set(words)) == 8


# Trap 16.
@pytest.mark.parametrize("language", LANGUAGES)
def test_composed_and_decomposed_text_are_one_and_no_mark_is_lost(language):
    text = "Việt Nam đường phố café 한국어"
    normal = normalizer(language)
    assert normal(unicodedata.normalize("NFD", text)) == normal(text) == "việt nam đường phố café 한국어"


def test_punctuation_and_case_go_words_and_apostrophes_stay():
    assert normalizer("vi")("Xin chào, “How’s it going?” – OK!") == "xin chào how's it going ok"
    assert normalizer("en")("Don't stop; 'quoted' Wi-Fi 3.5%") == "don't stop quoted wi fi 3 5"
    assert normalizer("fr")("L’eau d'ici, c'est ça.") == "l eau d ici c est ça"


def test_vietnamese_tone_placement_is_made_one():
    normal = normalizer("vi")
    assert normal("Hòa thủy khỏe") == normal("hoà thuỷ khoẻ") == "hoà thuỷ khoẻ"
    assert normal("hoán thúc quý") == "hoán thúc quý"


def test_format_characters_vanish_and_space_kinds_part_words():
    assert normalizer("vi")("xin\u200b chào\u00a0em") == "xin chào em"


def test_korean_characters_are_compared_without_spaces():
    assert normalizer("ko").characters("안녕 하세요!") == "안녕하세요"
    assert normalizer("vi").characters("xin  chào!") == "xin chào"


def test_names_carry_a_version_and_codes_are_understood():
    assert normalizer("vi_VN").label == "vi/v1"
    assert normalizer("zu").label == "default/v1"
    assert [primary_language(code) for code in ("vie", "Vietnamese", "fr-FR", "", None)] == [
        "vi", "vi", "fr", "und", "und",
    ]  # fmt: skip


@given(st.text(), st.sampled_from(LANGUAGES))
def test_normalising_twice_is_normalising_once_and_works_word_by_word(text, language):
    normal = normalizer(language)
    once = normal(text)
    assert normal(once) == once
    assert once.split() == [piece for word in text.split() for piece in normal.words(word)]
