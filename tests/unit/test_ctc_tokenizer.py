"""Tokens of CTC models: what can be written comes back, letters of both languages are there, files are safe."""

from __future__ import annotations

import json
import pickle
import unicodedata

import pytest
from ctc_assets import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ParakeetTokenizer

from training.base.errors import UserError
from training.data.spelling import audible
from training.models.ctc.tokenizer import LETTERS, CtcTokenizer

CHARACTERS = CtcTokenizer.characters(TEXTS, ("vi", "en"))
PIECES = CtcTokenizer.bpe(TEXTS, 120, ("vi", "en"))
texts = st.text(st.sampled_from([*LETTERS["vi"], "F", "J", "W", "Z", " ", ".", "!"]), max_size=40)


@given(texts)
@settings(max_examples=100, deadline=None)
def test_what_is_audible_comes_back(text):
    for tokenizer in (CHARACTERS, PIECES):
        ids = tokenizer.encode(text)
        assert 0 not in ids
        assert tokenizer.decode([id for i in ids for id in (0, i)]) == audible(text)
        assert tokenizer.unknown(text) == []


# Trap 15.
@pytest.mark.parametrize("vocabulary", ["characters", "bpe"])
def test_vietnamese_texts_alone_leave_english_words_whole(vocabulary):
    texts = ["xin chào các bạn", "hôm nay trời đẹp"]
    made = (
        CtcTokenizer.characters(texts, ("vi", "en"))
        if vocabulary == "characters"
        else CtcTokenizer.bpe(texts, 130, ("vi", "en"))
    )
    assert made.decode(made.encode("jazz wifi")) == "jazz wifi"
    bare = CtcTokenizer.characters(texts)
    assert bare.decode(bare.encode("jazz wifi")) == "a ii"
    assert bare.unknown("jazz wifi") == ["f", "j", "w", "z"]


def test_composed_and_decomposed_letters_are_the_same_tokens():
    text = "Hôm nay trời đẹp quá"
    for tokenizer in (CHARACTERS, PIECES):
        assert tokenizer.encode(unicodedata.normalize("NFD", text)) == tokenizer.encode(text)
        assert all(unicodedata.is_normalized("NFC", token) for token in tokenizer.tokens)


def test_characters_take_one_id_each_and_one_between_words():
    ids = CHARACTERS.encode("Ở nhà!")
    assert [CHARACTERS.tokens[i] for i in ids] == ["ở", "▁", "n", "h", "à"]


def test_pieces_are_learnt_and_no_more_than_asked_for():
    tokenizer = CtcTokenizer.bpe(["meeting meeting meeting"] * 5, 60, ("en",))
    assert len(tokenizer) <= 60
    assert [tokenizer.tokens[i] for i in tokenizer.encode("meeting")] == ["▁meeting"]


def test_a_vocabulary_below_its_letters_is_refused():
    with pytest.raises(UserError, match=r"model.vocab_size: 40, but the letters alone are \d+"):
        CtcTokenizer.bpe(TEXTS, 40, ("vi", "en"))


def test_an_unlisted_language_is_refused_by_name():
    with pytest.raises(UserError, match=r"model\.languages: the letters of 'ko'"):
        CtcTokenizer.characters(TEXTS, ("ko",))


@pytest.mark.parametrize("tokenizer", [CHARACTERS, PIECES], ids=["characters", "bpe"])
def test_files_give_the_same_and_stock_transformers_reads_paths_from_them(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CtcTokenizer.from_pretrained(tmp_path)
    copied = pickle.loads(pickle.dumps(tokenizer))
    ids = tokenizer.encode("hôm nay meeting")
    assert again.tokens == copied.tokens == tokenizer.tokens
    assert again.encode("hôm nay meeting") == copied.encode("hôm nay meeting") == ids
    path = [frame for i in ids for frame in (i, i, 0)]
    assert ParakeetTokenizer.from_pretrained(tmp_path).decode(path) == "hôm nay meeting"


def test_a_folder_without_a_vocabulary_is_named(tmp_path):
    with pytest.raises(UserError, match="no CTC model of ours"):
        CtcTokenizer.from_pretrained(tmp_path)


def test_a_blank_elsewhere_is_no_vocabulary_of_ours(tmp_path):
    CHARACTERS.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["<blank>"], vocabulary["a"] = vocabulary["a"], vocabulary["<blank>"]
    content["added_tokens"][0]["id"] = vocabulary["<blank>"]
    path.write_text(json.dumps(content), encoding="utf8")
    with pytest.raises(ValueError, match="must be token 0"):
        CtcTokenizer.from_pretrained(tmp_path)


def test_letters_digits_and_marks_are_audible_and_nothing_else():
    for code in range(0x3000):
        lowered = unicodedata.normalize("NFC", chr(code)).lower()
        heard = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in lowered)
        assert audible(chr(code)) == heard.strip()
