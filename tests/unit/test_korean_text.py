"""Korean transcripts: forms made one, AI-Hub's marks, two transcripts in one; real talks where there are some."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.example import AudioRef, Example, Hypothesis
from training.data.korean_text import KoreanRules, clean_korean, has_two_transcripts, plain_forms
from training.evaluation.normalize import normalizer
from training.evaluation.quick_scores import corpus_scores

KSPON = "b/ 음/ 그+ 그래서 (30%)/(삼 십 퍼센트) 정도야 n/"
PLAIN, SECOND = KoreanRules(), KoreanRules(dual="second")
READ = KoreanRules(dual="first", numerals="read")


@pytest.mark.parametrize(
    ("rules", "clean"),
    [
        (PLAIN, "음 그 그래서 (30%)/(삼 십 퍼센트) 정도야"),
        (KoreanRules(dual="first"), "음 그 그래서 30% 정도야"),
        (SECOND, "음 그 그래서 삼 십 퍼센트 정도야"),
        (READ, "음 그 그래서 삼십% 정도야"),
    ],
)
def test_a_transcript_of_ai_hub(rules: KoreanRules, clean: str) -> None:
    assert clean_korean(KSPON, rules) == clean
    assert has_two_transcripts(KSPON) and has_two_transcripts("( 3시 ) / (세 시)")
    assert not has_two_transcripts(clean_korean(KSPON, SECOND))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("o/근데 n/ 그래 l/", "근데 그래"),
        ("o/n/ 네 u/", "네"),
        ("그* 뭐, 음/. 어/?", "그 뭐, 음. 어?"),
        ("그리고/또는 C+ n/a b/w", "그리고/또는 C+ n/a b/w"),
        ("(웃음) 3+4*2", "(웃음) 3+4*2"),
        ("[웃음] **정말** 그래", "정말 그래"),
        ("（3시）／（세 시）에 ６０㎏", "세 시에 60kg"),
        ("", ""),
        ("b/", ""),
    ],
)
def test_the_cleaning_table(raw: str, clean: str) -> None:
    assert clean_korean(raw, SECOND) == clean


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (unicodedata.normalize("NFD", "한국어 값"), "한국어 값"),
        ("ㅋㅋ ㅠㅠ ㄱㄴㄷ", "ㅋㅋ ㅠㅠ ㄱㄴㄷ"),
        ("\u110f\u110f \u1160\u1172 \u11a8", "ㅋㅋ ㅠ ㄱ"),
        ("ﾡￂ ￜ", "ㄱㅏ ㅣ"),
        ("ＡＢｃ１２％", "ABc12%"),
        ("㎏ ㎡ ㎞", "kg m² km"),
        ("가\u3164나", "가 나"),
        ("① ㈜ ½ ㉠", "① ㈜ ½ ㉠"),
    ],
)
def test_forms_that_mean_the_same(written: str, plain: str) -> None:
    assert plain_forms(written) == plain


ALPHABET = "가각한ㄱㅏ\u1100\u1161\u11a8\u3164\uffa1\uff21 bn/+*()[]（）／10.개"


@given(st.text(st.one_of(st.sampled_from(ALPHABET), st.characters())), st.sampled_from([PLAIN, SECOND, READ]))
def test_cleaning_twice_changes_nothing(text: str, rules: KoreanRules) -> None:
    once = clean_korean(text, rules)
    assert clean_korean(once, rules) == once
    assert plain_forms(plain_forms(text)) == plain_forms(text)


@given(st.lists(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1), min_size=1))
def test_words_of_syllables_stay_as_they_are(words: list[str]) -> None:
    text = " ".join(words)
    for form in ("NFC", "NFD"):
        assert clean_korean(unicodedata.normalize(form, text), READ) == text
        assert normalizer("ko")(unicodedata.normalize(form, text)) == text


def test_scoring_rules() -> None:
    normal = normalizer("ko")
    assert normal.label == "ko/v2"
    assert normal("초ㆍ중ㆍ고, “안녕”하세요! ＫＢＳ 60㎏ ㅋㅋ") == "초 중 고 안녕 하세요 kbs 60kg ㅋㅋ"
    assert normal.characters("안녕 하세요!") == "안녕하세요"


def rows(texts: list[str], heard: list[str]) -> dict[str, float]:
    examples = [
        Example(
            id=str(n), audio=AudioRef(path="x.wav"), duration=1.0, texts={"transcribe": text}, language="ko"
        )
        for n, text in enumerate(texts)
    ]
    said = [Hypothesis(id=str(n), task="transcribe", text=text) for n, text in enumerate(heard)]
    return corpus_scores(examples, said)


def test_characters_are_counted_without_spaces_and_with_them() -> None:
    # 아버지가 방에: six syllables, with the space seven characters; the space is in another place.
    scores = rows(["아버지가 방에"], ["아버지 가방에"])
    assert scores == {"wer": 100.0, "cer": 0.0, "cer_spaces": pytest.approx(100 * 2 / 7)}


# Real talks: local measurements only, their text goes nowhere.


@pytest.fixture(scope="module")
def talks() -> list[str]:
    """Transcripts of TEDx talks in Korean."""
    folder = os.environ.get("POLYVOX_SPEECH")
    table = Path(folder or "") / "pansori_tedxkr" / "manifest.tsv"
    if not folder or not table.is_file():
        pytest.skip("no real speech here: POLYVOX_SPEECH names no folder with pansori_tedxkr")
    with table.open(encoding="utf-8", newline="") as file:
        return [row["transcript"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def test_real_transcripts_are_normalised_once_and_for_all(talks: list[str]) -> None:
    normal = normalizer("ko")
    assert len(talks) > 1000
    for text in talks:
        once = normal(text)
        assert normal(once) == once
        assert re.fullmatch(r"[가-힣0-9a-z]+(?: [가-힣0-9a-z]+)*", once), text
        for rules in (PLAIN, SECOND, READ):
            clean = clean_korean(text, rules)
            assert clean_korean(clean, rules) == clean


def test_real_numerals_are_spelt_out_but_beside_latin_letters(talks: list[str]) -> None:
    for text in talks:
        read = clean_korean(text, READ)
        assert not re.search(r"(?<![A-Za-z0-9])[0-9]+(?![A-Za-z0-9])", read), read
        assert len(read.split()) == len(text.split())


def test_real_transcripts_score_alike_composed_and_decomposed(talks: list[str]) -> None:
    apart = [unicodedata.normalize("NFD", text) for text in talks]
    assert rows(talks, apart) == {"wer": 0.0, "cer": 0.0, "cer_spaces": 0.0}
    heard = [text.replace("니", "이") for text in talks]
    scores = rows(talks, heard)
    assert scores["cer"] > 0
    assert rows(apart, heard) == rows(talks, [unicodedata.normalize("NFD", text) for text in heard]) == scores
