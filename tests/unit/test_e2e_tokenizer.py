from __future__ import annotations

import string
import unicodedata

import pytest
from e2e_tiny import TRANSCRIPTS, TRANSLATIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, MBart50Tokenizer

from training.models.e2e.tokenizer import (
    TASK_TOKENS,
    extend_tokenizer,
    language_codes,
    language_token,
    text_ids,
    token_id,
    train_mbart_tokenizer,
    trim_tokenizer,
    unseen,
)

TEXTS = [*TRANSCRIPTS, *TRANSLATIONS]
LETTERS = sorted(set("".join(TEXTS)) | set(string.ascii_letters + string.digits))


@pytest.fixture(scope="module")
def tokenizer() -> MBart50Tokenizer:
    return extend_tokenizer(train_mbart_tokenizer(TEXTS, 120), list(TASK_TOKENS.values()))


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=LETTERS, max_size=40))
def test_every_text_of_the_known_letters_comes_back(tokenizer: MBart50Tokenizer, text: str) -> None:
    words = " ".join(text.split())
    ids = text_ids(tokenizer, words)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == words


# Trap 15.
def test_letters_that_vietnamese_lacks_are_in_the_vocabulary() -> None:
    tokenizer = train_mbart_tokenizer(["xin chào các bạn"], 40)
    assert list(unseen(tokenizer, ["jazz fan wow Zoe Fan 42"])) == []


def test_only_the_given_texts_shape_the_vocabulary(tokenizer: MBart50Tokenizer) -> None:
    assert "▁kênh" not in train_mbart_tokenizer(["xin chào"] * 5, 90).get_vocab()
    assert list(unseen(tokenizer, ["火", "xin"])) == ["火"]


def test_stock_loading_gives_the_same_tokenizer(tokenizer: MBart50Tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    for loader in (MBart50Tokenizer, AutoTokenizer):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is MBart50Tokenizer
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert [text_ids(loaded, t) for t in TEXTS] == [text_ids(tokenizer, t) for t in TEXTS]


def test_the_layout_is_mbarts(tokenizer: MBart50Tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert len({token_id(tokenizer, code) for code in language_codes(tokenizer).values()}) == 52
    tail = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer) - 3, len(tokenizer))))
    assert tail == ["<mask>", "<2transcribe>", "<2translate>"]


def test_control_tokens_leave_no_trace_in_text(tokenizer: MBart50Tokenizer) -> None:
    control = [token_id(tokenizer, token) for token in ("vi_VN", "<2transcribe>", "<2translate>")]
    ids = [*control, *text_ids(tokenizer, TEXTS[1]), 2, 1, 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[1]


@pytest.mark.parametrize("text", ["</s>", "em vi_VN em", "<2translate> em", "<pad><mask><s>"])
def test_a_text_cannot_smuggle_control_tokens(tokenizer: MBart50Tokenizer, text: str) -> None:
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert not control & set(text_ids(tokenizer, text))


def test_decomposed_tones_are_composed(tokenizer: MBart50Tokenizer) -> None:
    assert text_ids(tokenizer, unicodedata.normalize("NFD", "chào các bạn")) == text_ids(
        tokenizer, "chào các bạn"
    )


# Trap 30.
def test_language_ids_are_looked_up_by_name(tokenizer: MBart50Tokenizer) -> None:
    assert language_codes(tokenizer)["vi"] == "vi_VN"
    assert token_id(tokenizer, "vi_VN") == tokenizer.convert_tokens_to_ids("zh_CN") - 1
    assert token_id(tokenizer, "vi_VN") < len(tokenizer) < 250_024


def test_languages_outside_mbart_get_their_own_token(tokenizer: MBart50Tokenizer) -> None:
    assert [language_token(code) for code in ("vi", "en_XX", "mdw")] == ["vi_VN", "en_XX", "mdw_XX"]
    extended = extend_tokenizer(tokenizer, [language_token("mdw"), "vi_VN"])
    assert len(extended) == len(tokenizer) + 1
    assert language_codes(extended)["mdw"] == "mdw_XX"
    assert extended.decode([len(tokenizer)], skip_special_tokens=True) == ""


def test_trimming_keeps_the_tokenisation_one_to_one(tokenizer: MBart50Tokenizer) -> None:
    trimmed, old = trim_tokenizer(tokenizer, TEXTS[:2])
    assert len(trimmed) < len(tokenizer)
    for text in TEXTS[:2]:
        assert [old[i] for i in text_ids(trimmed, text)] == text_ids(tokenizer, text)
    for token in [*TASK_TOKENS.values(), *language_codes(tokenizer).values(), "</s>", "<mask>"]:
        assert old[token_id(trimmed, token)] == token_id(tokenizer, token)


def test_trimming_keeps_the_letters_of_the_scripts_in_use() -> None:
    tokenizer = train_mbart_tokenizer(["xin chào các bạn", "привет мир", "你好", "tạm biệt"], 120)
    trimmed, _ = trim_tokenizer(tokenizer, ["xin chào"])
    assert list(unseen(trimmed, ["tạm biệt jazz", "привет", "你好"])) == ["привет", "你好"]
