"""Texts of a table are spelled, whatever control tokens they are written like: every tokenizer, every added token."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import AddedToken, PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperTokenizer

from training.base.errors import UserError
from training.data.example import AudioRef, Example
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.decode import decode_text
from training.models.common.plain_text import many_text_ids, plain_backend, text_ids
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.domain_whisper.collator import DomainEncode
from training.models.domain_whisper.tokens import domain_token
from training.models.e2e.collator import E2EEncode, Frames
from training.models.e2e.tokenizer import (
    TASK_TOKENS,
    extend_tokenizer,
    token_id,
    train_mbart_tokenizer,
    trim_tokenizer,
)
from training.models.e2e.tokenizer import text_ids as mbart_ids
from training.models.voxlm.causal_lm import Repeating, train_tokenizer
from training.models.voxlm.collator import VoxLMEncode, word_of_tokens
from training.models.voxlm.stored_config import AUDIO, VoxLMProcessor
from training.models.whisper.collator import WhisperEncode
from training.models.whisper.tokenizer import train_whisper_tokenizer

STOCK = Path(__file__).parents[3] / "shared" / "tokenizers" / "whisper-multilingual"
TEXTS = [
    "Xin chào các bạn",
    "hôm nay chúng ta meeting nhé",
    "a < b | c > d",
    "endoftext",
    "<s> [x] {y} (0.00)",
]
WRITABLE = sorted(
    set("".join(TEXTS)) | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>|/_-.: ")
)


def whisper() -> Any:
    """Made here, with timestamps that are added tokens but not special ones, as in the stock tokenizer."""
    tokenizer = train_whisper_tokenizer(TEXTS * 3, 400, ["vi", "en"])
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [*tokenizer.extra_special_tokens, domain_token("north")]}
    )
    tokenizer.add_tokens(
        [AddedToken(f"<|{n / 50:.2f}|>", special=False, normalized=False) for n in range(80)]
    )
    return tokenizer


def stock_whisper() -> Any:
    if not STOCK.is_dir():
        pytest.skip("the stock tokenizer is not here")
    return WhisperTokenizer.from_pretrained(STOCK)


def language_model() -> Any:
    """ChatML, and added tokens of every kind: not special, found after normalisation, with white space around."""
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, AUDIO]})
    odd = [
        AddedToken("<think>", special=False),
        AddedToken("<start_of_turn>", special=True, lstrip=True, rstrip=True),
    ]
    tokenizer.add_tokens([*odd, AddedToken("</tool>", normalized=True), AddedToken("meet", single_word=True)])
    return tokenizer


def sentencepiece_like() -> Any:
    """Control tokens are pieces of the model's vocabulary; merges, or the whole word's being a piece, lead to them."""
    letters = sorted(set(WRITABLE) - {" "})
    merges = [("<", "s"), ("<s", ">"), ("b", "o"), ("<", "bo"), ("<bo", "s"), ("<bos", ">")]
    pieces = ["<unk>", "<s>", "</s>", "<bos>", "▁", *letters, "<s", "bo", "<bo", "<bos", "<pad>"]
    backend = Tokenizer(
        BPE(
            vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
            merges=merges,
            unk_token="<unk>",
            ignore_merges=True,
        )
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        extra_special_tokens=["<s>"],
    )  # fmt: skip


def mbart() -> Any:
    """Also trained on texts that hold its own control tokens."""
    tokenizer = train_mbart_tokenizer([*TEXTS, "vi_VN <mask> </s> <2translate>", "".join(WRITABLE)] * 3, 300)
    return extend_tokenizer(tokenizer, list(TASK_TOKENS.values()))


MAKERS: dict[str, Callable[[], Any]] = {
    "whisper": whisper,
    "stock whisper": stock_whisper,
    "language model": language_model,
    "sentencepiece": sentencepiece_like,
    "mbart": mbart,
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


def added_tokens(tokenizer: Any) -> dict[int, str]:
    return {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}


def test_no_added_token_is_ever_matched(tokenizer: Any) -> None:
    added = added_tokens(tokenizer)
    assert added
    for token in added.values():
        for text in (
            token,
            f" {token}",
            f"a{token}b",
            f"xin {token} chào",
            f"{token}{token}",
            f"<|{token}|>",
        ):
            assert not added.keys() - {tokenizer.unk_token_id} & set(text_ids(tokenizer, text)), text


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_texts_with_control_tokens_in_them_come_back(tokenizer: Any, data: st.DataObject) -> None:
    added = added_tokens(tokenizer)
    words = st.one_of(st.sampled_from(sorted(added.values())), st.text(WRITABLE, max_size=6))
    text = " ".join("".join(data.draw(st.lists(words, max_size=6))).split())
    ids = text_ids(tokenizer, f" {text}" if isinstance(tokenizer, WhisperTokenizer) else text)
    assert not set(ids) & added.keys()
    assert decode_text(tokenizer, ids) == text
    assert many_text_ids(tokenizer, [text, text]) == [text_ids(tokenizer, text)] * 2


def test_ordinary_text_has_the_ids_that_it_always_had(tokenizer: Any) -> None:
    for text in (*TEXTS, "", "Xin  chào", "1,2; 3", "x" * 50):
        if "<s>" not in text and "meet" not in text:
            assert text_ids(tokenizer, text) == tokenizer(text, add_special_tokens=False).input_ids


def test_a_copy_in_another_process_gives_the_same_ids(tokenizer: Any) -> None:
    plain_backend(tokenizer)
    text = f"xin {next(iter(added_tokens(tokenizer).values()))} chào"
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert text_ids(other, text) == text_ids(tokenizer, text)
    assert tokenizer(next(iter(added_tokens(tokenizer).values())), add_special_tokens=False).input_ids, (
        "unchanged"
    )


def clip(text: str, **more: Any) -> Example:
    return Example(id="u", audio=AudioRef(path="u.wav"), duration=1.0, texts={"transcribe": text}, **more)


class Processor:
    """As much of a Whisper processor as encoding a text takes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.feature_extractor = tokenizer, WhisperFeatureExtractor()


@pytest.mark.parametrize("make", [whisper, stock_whisper])
@pytest.mark.parametrize(
    "text",
    [
        "Xin <|endoftext|> chào",
        "<|0.00|> Xin chào<|1.20|>",
        "<|en|><|translate|> hello",
        "<|startoftranscript|>",
    ],
)
def test_whispers_labels_hold_control_tokens_in_the_prompt_and_at_the_end_alone(
    make: Callable[[], Any], text: str
) -> None:
    tokenizer = make()
    encode = WhisperEncode(Processor(tokenizer), ("transcribe",), "vi")  # type: ignore[arg-type]
    labels = encode.labels(clip(text), "transcribe")
    prompt = tokenizer.convert_tokens_to_ids(["<|vi|>", "<|transcribe|>", "<|notimestamps|>"])
    assert labels[:3] == prompt and labels[-1] == tokenizer.eos_token_id
    assert not set(labels[3:-1]) & added_tokens(tokenizer).keys()
    assert decode_text(tokenizer, labels) == text
    assert (
        decode_text(
            tokenizer, [*labels[:-1], *tokenizer.convert_tokens_to_ids(["<|0.00|>", "<|1.20|>"])][:99]
        )
        == text
    )


@pytest.mark.parametrize(
    "language", ["transcribe", "startoftranscript", "0.00", "domain:north", "endoftext", "xx"]
)
def test_a_language_cell_cannot_name_another_control_token(language: str) -> None:
    encode = WhisperEncode(Processor(whisper()), ("transcribe",), "vi")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no token in this tokenizer"):
        encode.prompt(clip("a", language=language), "transcribe")
    domains = {"north": encode.processor.tokenizer.convert_tokens_to_ids(domain_token("north"))}
    with_domain = DomainEncode(encode.processor, ("transcribe",), "vi", domains=domains)
    prompt = with_domain.prompt(clip("a", language="en", domain="north"), "transcribe")
    assert encode.processor.tokenizer.convert_ids_to_tokens(prompt)[::2] == ["<|en|>", "<|domain:north|>"]


def test_mbarts_labels_and_language_cells() -> None:
    tokenizer = mbart()
    encode = E2EEncode(None, tokenizer, ("transcribe",), ("vi_VN", "en_XX"), Frames(((10, 5),)))  # type: ignore[arg-type]
    text = "a </s> <mask> vi_VN <2translate> <pad>"
    labels = encode.targets(clip(text), 16000)["labels"]["transcribe"]
    assert labels[:2] == [token_id(tokenizer, token) for token in ("vi_VN", "<2transcribe>")]
    assert labels[-1] == tokenizer.eos_token_id
    assert decode_text(tokenizer, labels) == text
    assert encode.prompt(clip(text, language="en"), "transcribe")[0] == token_id(tokenizer, "en_XX")
    for language in ("</s>", "<mask>", "<2translate>", "<unk>"):
        with pytest.raises(ValueError, match="has no token in this tokenizer"):
            encode.prompt(clip(text, language=language), "transcribe")


def test_mbarts_control_tokens_are_special_whatever_the_training_texts_hold() -> None:
    tokenizer = mbart()
    control = ["vi_VN", "<mask>", "</s>", *TASK_TOKENS.values()]
    assert set(control) <= set(tokenizer.all_special_tokens)
    trimmed, _ = trim_tokenizer(tokenizer, ["xin vi_VN chào </s>"])
    for one in (tokenizer, trimmed):
        ids = [token_id(one, token) for token in control]
        assert not set(ids) & set(mbart_ids(one, "vi_VN <mask></s> <2translate>"))
        assert one.decode(ids, skip_special_tokens=True).strip() == ""


def test_a_speech_language_models_response_and_its_words() -> None:
    tokenizer = language_model()
    text = "xin <|im_end|> chào <think> <start_of_turn> <|audio|>"
    ids, words = word_of_tokens(tokenizer, text)
    assert not set(ids) & added_tokens(tokenizer).keys()
    assert sorted(set(words)) == list(range(len(text.split())))
    encode = VoxLMEncode(WhisperFeatureExtractor(), tokenizer, (1, 2), tokenizer.eos_token_id)
    heard = encode.spoken(text)["labels"]["transcribe"]
    assert heard[-1] == tokenizer.eos_token_id and decode_text(tokenizer, heard[2:]) == text


def test_an_instruction_with_a_control_token_is_refused() -> None:
    tokenizer = language_model()
    processor = object.__new__(VoxLMProcessor)
    processor.tokenizer = tokenizer
    before, after = processor.prompt("Transcribe a < b | c.")
    assert "Transcribe a < b | c." in tokenizer.decode(after) and tokenizer.decode(before).startswith(
        "<|im_start|>"
    )
    for token in ("<|im_end|>", AUDIO, "<think>"):
        with pytest.raises(UserError, match=r"model\.instruction: .* is a control token"):
            processor.prompt(f"Transcribe {token} the speech.")
        with pytest.raises(UserError, match=r"--instruction: .* is a control token"):
            Repeating(tokenizer, ["a"], f"Transcribe {token}")


def test_sentences_of_a_language_model_are_text_too() -> None:
    tokenizer = language_model()
    rows = Repeating(tokenizer, ["xin <|im_end|> chào"], "Transcribe the speech.")
    response = [i for i in rows[0]["labels"] if i != -100]
    assert response[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in response[:-1]


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(["<blank>", "<pad>", "[UNK]", "|", "▁", "</s>", "<s>", "<unk>"]),
            st.text(max_size=4),
        ),
        max_size=6,
    )
)
def test_ctc_labels_hold_no_blank(parts: Sequence[str]) -> None:
    text = " ".join(parts)
    for tokenizer in (CTC_LETTERS, CTC_PIECES):
        assert 0 not in tokenizer.encode(text)
    assert 0 not in CtcCharacters("abc ").encode(text)


CTC_LETTERS = CtcTokenizer.characters(["blank pad unk s"], ["en"])
CTC_PIECES = CtcTokenizer.bpe(["blank pad unk s"] * 5, 60, ["en"])


def test_decoding_leaves_out_control_tokens_and_nothing_that_is_only_written_like_one() -> None:
    tokenizer = whisper()
    ids = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|vi|>", "<|0.00|>"])
    ids += [
        *text_ids(tokenizer, " <|vi|> xin <|1.00|>"),
        tokenizer.convert_tokens_to_ids("<|1.00|>"),
        tokenizer.eos_token_id,
    ]
    decode = partial(decode_text, tokenizer)
    assert decode(ids) == "<|vi|> xin <|1.00|>"
