"""A language model or hot words spelled otherwise than the model writes: measured, mended where it can be, else refused."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.cli.options import from_arguments, to_arguments
from training.decoding.ctc_setup import SearchOptions
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.decoding.flashlight_beam import installed
from training.decoding.ngram.arpa import NgramModel, read_arpa, write_arpa
from training.decoding.ngram.counts import UNK
from training.decoding.ngram.kneser_ney import estimate
from training.decoding.spelling_fit import fit_hot_words, fit_language_model, folded
from training.models.abilities import CtcFrames
from training.models.ctc.tokenizer import CtcTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LOWER = CtcVocabulary(("", "▁", *LETTERS, "é"))
UPPER = CtcVocabulary(("<blank>", "|", *LETTERS.upper()))
SENTENCES = [line.split() for line in ("the dog ran home", "a cat sat", "the cat ran", "dog and cat")]
PLACE = Path("words.arpa")


def written(change: Any) -> list[list[str]]:
    return [[change(word) for word in words] for words in SENTENCES]


def unigrams(**shares: float) -> NgramModel:
    """A model of words with these probabilities."""
    table = {(word,): (math.log10(share), 0.0) for word, share in shares.items()}
    return NgramModel([{**table, ("<s>",): (-99.0, 0.0), ("</s>",): (-0.3, 0.0), (UNK,): (-0.1, 0.0)}])


class Model:
    """What `SearchOptions` looks at."""

    def __init__(self, vocabulary: CtcVocabulary) -> None:
        self.frames = CtcFrames(
            tokens=vocabulary.tokens, blank=0, seconds_per_frame=0.02, log_probs=lambda model, batch: []
        )


def frames(text: str, vocabulary: CtcVocabulary) -> np.ndarray:
    """Frames that spell ``text``, each label once with a blank after it."""
    delimiter = vocabulary.delimiter
    path = [i for c in text for i in (vocabulary.tokens.index(delimiter if c == " " else c), 0)]
    rows = np.full((len(path), len(vocabulary.tokens)), 1e-3)
    rows[np.arange(len(path)), path] = 1.0
    return np.log(rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_share_is_weighted_by_probability_and_counts_no_marker() -> None:
    model = unigrams(the=0.3, cat=0.3, straße=0.2)
    with pytest.raises(UserError, match=r"can spell 75\.0 %") as caught:
        fit_language_model(model, LOWER, PLACE)
    assert "'straße'" in str(caught.value), "an example of the language model's spelling"
    assert " a b c d " in str(caught.value), "and of the model's"
    assert "--accept_lm" in str(caught.value)
    found = fit_language_model(model, LOWER, PLACE, accept=True)
    assert found.share == pytest.approx(0.75)
    assert set(found.spelled) == {"the", "cat"}


@pytest.mark.parametrize(("share", "fine"), [(0.899, False), (0.901, True)])
def test_ninety_percent_is_the_border(share: float, fine: bool) -> None:
    model = unigrams(cat=share, **{"20": 1 - share})
    if fine:
        (note,) = fit_language_model(model, LOWER, PLACE).notes
        assert "'20'" in note, "what is lost is said though it is little"
    else:
        with pytest.raises(UserError, match=r"can spell 89\.9 %"):
            fit_language_model(model, LOWER, PLACE)


def test_a_model_of_the_same_spelling_is_taken_without_a_word() -> None:
    found = fit_language_model(estimate(SENTENCES, 2).model, LOWER, PLACE)
    assert (found.fold, found.share, found.notes, found.lost) == ("as it is", 1.0, (), ())


@pytest.mark.parametrize(
    ("change", "vocabulary", "fold"),
    [
        (str.upper, LOWER, "lower case"),
        (str.title, LOWER, "lower case"),
        (str.lower, UPPER, "upper case"),
        (lambda word: unicodedata.normalize("NFD", word.replace("a", "é")), LOWER, "NFC"),
        (lambda word: unicodedata.normalize("NFD", word.replace("a", "é")).upper(), LOWER, "lower case"),
    ],
)
def test_case_and_composition_are_folded_and_the_scores_are_those_of_a_model_spelled_so(
    change: Any, vocabulary: CtcVocabulary, fold: str
) -> None:
    theirs = estimate(written(change), 3).model
    found = fit_language_model(theirs, vocabulary, PLACE)
    assert (found.fold, found.share) == (fold, 1.0)
    assert fold in found.notes[0] and "100.0 %" in found.notes[0]
    ours = folded(theirs, found)
    own = [[found.spelled[word] for word in words] for words in written(change)]
    right = estimate(own, 3).model
    for words in own:
        assert ours.sentence(words) == pytest.approx(right.sentence(words))
        assert all(map(vocabulary.spells, words))


def test_entries_that_would_become_one_word_are_never_folded() -> None:
    refused = unigrams(The=0.4, the=0.4, cat=0.2)
    with pytest.raises(UserError, match="'The' and 'the' would become one word"):
        fit_language_model(refused, LOWER, PLACE)
    few = unigrams(The=0.05, the=0.75, cat=0.2)
    found = fit_language_model(few, LOWER, PLACE)
    assert found.fold == "as it is" and found.share == pytest.approx(0.95)
    assert folded(few, found) is few
    assert "'The' and 'the'" in found.notes[0]
    assert fit_language_model(refused, LOWER, PLACE, accept=True).fold == "as it is"


@pytest.mark.parametrize(
    "words",
    [
        ("안녕하세요", "저는"),  # another script
        ("▁the", "▁ca", "t"),  # byte-pair pieces
        ("1", "20", "300"),  # digits where words are said
        ("the,", "cat.", "(dog)"),  # punctuation
    ],
)
def test_other_units_than_the_models_words_are_refused(words: tuple[str, ...]) -> None:
    shares = {word: 1 / len(words) for word in words}
    with pytest.raises(UserError, match="by probability") as caught:
        fit_language_model(unigrams(**shares), LOWER, PLACE)
    assert repr(words[0]) in str(caught.value)


def test_a_model_of_byte_pair_pieces_spells_what_its_pieces_add_up_to() -> None:
    tokenizer = CtcTokenizer.bpe(["the cat sat", "the dog ran", "the cats"] * 5, 40)
    vocabulary = CtcVocabulary(("", *tokenizer.tokens[1:]))
    assert any(len(piece) > 2 for piece in vocabulary.letters), "there are pieces of several letters"
    for word in ("the", "cats", "dogs", "rant", "t"):
        assert vocabulary.spells(word)
    assert not any(map(vocabulary.spells, ("", "THE", "fox", "▁the", "the cat")))
    assert fit_language_model(estimate(written(str.upper), 2).model, vocabulary, PLACE, accept=True).fold == (
        "lower case"
    )


PIECES = CtcVocabulary(("", "▁a", "▁ba", "b", "ab", "▁"))
NO_BARE_START = CtcVocabulary(("", "▁a", "▁ba", "b", "ab"))


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(1, 4), min_size=1, max_size=6), word=st.text("ab", max_size=6))
def test_what_is_spelled_is_what_some_ids_write(ids: list[int], word: str) -> None:
    for vocabulary in (PIECES, NO_BARE_START):
        for said, where in vocabulary.words([1, *ids]):
            assert vocabulary.spells(said) or not vocabulary.begins_word[ids[where[0] - 1]]
    starts = [t[1:] for t in NO_BARE_START.tokens if t.startswith("▁")]
    reached, found = set(starts), set(starts)
    while reached:
        reached = {one + piece for one in reached for piece in ("b", "ab") if len(one + piece) <= 6} - found
        found |= reached
    assert NO_BARE_START.spells(word) == (word in found)


def test_hot_words_are_each_written_as_the_model_writes() -> None:
    found, (note,) = fit_hot_words({"TikTok": 2.5, "the cat": 8.0, "Wi-Fi": 1.0}, LOWER)
    assert found == {"tiktok": 2.5, "the cat": 8.0, "wi fi": 1.0}
    assert "'TikTok' as 'tiktok'" in note and "the cat" not in note
    assert fit_hot_words({"the cat": 8.0}, LOWER) == ({"the cat": 8.0}, ())
    assert fit_hot_words({"cat": 1.0}, UPPER)[0] == {"CAT": 1.0}
    decomposed = unicodedata.normalize("NFD", "café")
    assert fit_hot_words({decomposed: 1.0}, LOWER)[0] == {"café": 1.0}


def test_a_hot_word_that_cannot_be_spelled_stops_the_command() -> None:
    with pytest.raises(
        UserError, match=r"cannot be spelled by this model: '4G phone', '안녕': it has no '4', "
    ):
        fit_hot_words({"cat": 8.0, "4G phone": 8.0, "안녕": 8.0}, LOWER)
    found, (note,) = fit_hot_words({"cat": 8.0, "4G": 8.0}, LOWER, accept=True)
    assert found == {"cat": 8.0, "4G": 8.0} and "never found: '4G'" in note
    with pytest.raises(UserError, match="'Cat' and 'cat' are both written 'cat'"):
        fit_hot_words({"Cat": 8.0, "cat": 2.0}, LOWER)
    assert fit_hot_words({"Cat": 8.0, "cat": 8.0}, LOWER)[0] == {"cat": 8.0}


SEARCHES = ["own", pytest.param("flashlight", marks=pytest.mark.skipif(not installed(), reason="extra beam"))]


@pytest.mark.parametrize("search", SEARCHES)
def test_both_searches_measure_on_loading(
    search: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, change in (("lower", str.lower), ("upper", str.upper), ("other", lambda word: "안녕" + word)):
        write_arpa(estimate(written(change), 2).model, tmp_path / f"{name}.arpa")
    said = {}
    for name in ("lower", "upper"):
        decoder = SearchOptions(lm=tmp_path / f"{name}.arpa", search=search).decoder(Model(LOWER))  # type: ignore[arg-type]
        assert decoder is not None
        said[name] = [decoder(frames(text, LOWER)).text for text in ("the cat ran", "dog and cat")]
        assert ("lower case" in capsys.readouterr().err) == (name == "upper")
    assert said["upper"] == said["lower"] == ["the cat ran", "dog and cat"]
    with pytest.raises(UserError, match=r"other\.arpa: the model can spell 0\.0 %"):
        SearchOptions(lm=tmp_path / "other.arpa", search=search).decoder(Model(LOWER))  # type: ignore[arg-type]


def test_accept_lm_goes_on_and_survives_a_command_line(tmp_path: Path) -> None:
    import argparse

    from training.cli.options import add_options

    write_arpa(estimate(written(lambda word: word + "ß"), 2).model, tmp_path / "other.arpa")
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args(["--lm", str(tmp_path / "other.arpa"), "--accept_lm", "--hot_words", "4G"])
    again = from_arguments(parser.parse_args(to_arguments(args)))
    assert again == from_arguments(args) and again.accept_lm
    decoder = again.decoder(Model(LOWER))  # type: ignore[arg-type]
    assert decoder is not None
    assert decoder(frames("cat", LOWER)).text == "cat"


def test_an_unknown_marker_in_capitals_is_no_word(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-0.2\t<UNK>\n-0.5\t</s>\n-99\t<s>\n-0.9\tcat\n\n\\end\\\n",
        encoding="utf8",
    )
    model = read_arpa(path)
    assert list(model.words()) == ["cat"]
    assert model.score((), "dog")[0] == pytest.approx(-0.2 * math.log(10))
    assert fit_language_model(model, LOWER, path).share == 1.0
    with pytest.raises(UserError, match="has no words"):
        fit_language_model(unigrams(), LOWER, path)
