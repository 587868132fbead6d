"""Cleaning: what goes, what stays, and that words stay apart and whole."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.text import clean_transcript, sentence_key


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("[cười] Xin chào", "Xin chào"),
        ("[laughter] [music] ừ", "ừ"),
        ("nhạc [nhạc nền nhẹ] hay", "nhạc hay"),
        ("**Hello**", "Hello"),
        ("*nghiêng* và **đậm**", "nghiêng và đậm"),
        ("***cả hai***", "cả hai"),
        ("**[cười]** ha", "ha"),
        ("*[cười]* ha", "ha"),
        ("[**cười**] ha", "ha"),
        ("Hello  world", "Hello world"),
        ("a\u00a0b\u202fc\td\r\ne", "a b c d e"),
        ("xin[cười]chào", "xin chào"),
        ("rồi [cười], đi", "rồi, đi"),
        ("rồi [cười]. [vỗ tay]", "rồi."),
        ("[cười], đi", "đi"),
        ("[[cười]] ha", "ha"),
        ("a\u200bb", "a b"),
        ("ti\u200dktok\ufeff\u00ad", "tiktok"),
        ("e\u0302\u0301m", "ếm"),
        ("[cười", "[cười"),
        ("đi [ra ngoài chợ mua] rau", "đi [ra ngoài chợ mua] rau"),
        ("(nói nhỏ)", "(nói nhỏ)"),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
        ("it's e-mail @home 50%", "it's e-mail @home 50%"),
        ("", ""),
        ("[cười]", ""),
    ],
)
def test_the_cleaning_table(raw: str, clean: str) -> None:
    assert clean_transcript(raw) == clean


VIETNAMESE = "aăâbcdđeêghiklmnoôơpqrstuưvxyàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ"
ENGLISH = "abcdefghijklmnopqrstuvwxyz"
LETTERS = sorted(set(VIETNAMESE + VIETNAMESE.upper() + ENGLISH + ENGLISH.upper()))
WORD = st.text(st.sampled_from(LETTERS), min_size=1, max_size=8)
WORDS = st.lists(WORD, min_size=1, max_size=8)
NOISE = st.sampled_from(
    [
        " ",
        "  ",
        "\u00a0",
        "\t",
        " [cười] ",
        "[music]",
        " [nhạc nền nhẹ] ",
        " ** ",
        "\u200b",
        " \ufeff",
        "\n",
        " [] ",
    ]
)


@given(st.text(st.sampled_from("ab ế*[]\u0301\u200b\u200d\ufeff\u00a0.,\n?"), max_size=40))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_transcript(text)
    assert clean_transcript(once) == once
    assert once == once.strip()
    assert unicodedata.is_normalized("NFC", once)
    assert "  " not in once


@given(st.text())
def test_cleaning_twice_changes_nothing_for_any_text(text: str) -> None:
    once = clean_transcript(text)
    assert clean_transcript(once) == once


@given(WORDS, st.data())
def test_words_are_never_joined_split_or_lost(words: list[str], data: st.DataObject) -> None:
    text = data.draw(NOISE) + words[0]
    for word in words[1:]:
        text += data.draw(NOISE) + word
    decomposed = data.draw(st.booleans())
    text = unicodedata.normalize("NFD", text) if decomposed else text
    assert clean_transcript(text + data.draw(NOISE)).split() == words


@given(WORDS, st.data())
def test_emphasis_goes_and_its_words_stay(words: list[str], data: st.DataObject) -> None:
    marked = [data.draw(st.sampled_from(["{}", "**{}**", "*{}*", "***{}***"])).format(word) for word in words]
    assert clean_transcript(" ".join(marked)).split() == words


# Trap 15.
def test_every_letter_of_both_languages_stays() -> None:
    text = " ".join(LETTERS)
    assert clean_transcript(text) == text
    assert clean_transcript("**fjwz** FJWZ [cười] jazz wifi") == "fjwz FJWZ jazz wifi"
    assert sentence_key("Jazz WIFI, fjwz!") == "jazz wifi fjwz"


@given(WORDS)
def test_tones_tell_sentences_apart_and_casing_does_not(words: list[str]) -> None:
    text = " ".join(words)
    assert sentence_key(text.upper() + "!") == sentence_key(f"[cười] {text.lower()}")
    assert sentence_key("má") != sentence_key("mà")
