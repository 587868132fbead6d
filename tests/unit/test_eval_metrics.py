from __future__ import annotations

import math

import jiwer
import pytest
import sacrebleu
from eval_assets import corpus, example, said

from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.metrics import bleu_statistic, chrf_statistic, signatures, transcript_statistics
from training.evaluation.quick_scores import corpus_scores
from training.evaluation.rows import join
from training.evaluation.word_alignment import align_words


# Trap 17.
def test_wer_is_total_errors_over_total_words():
    examples = [example("a", "một"), example("b", "một hai ba bốn năm sáu bảy tám chín")]
    hypotheses = [said("a", "hai"), said("b", "một hai ba bốn năm sáu bảy tám chín")]
    assert corpus_scores(examples, hypotheses)["wer"] == pytest.approx(10.0)  # the mean of rows would be 50


def test_hand_computed_counts_and_scores():
    # a b c → a x c: one substitution; a b → b: one deletion; a → a b c: two insertions
    aligned = align_words(["a b c", "a b", "a"], ["a x c", "b", "a b c"])
    assert aligned.counts.tolist() == [[2, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 2]]
    assert aligned.error_rate().value == pytest.approx(100 * 4 / 6)


def test_cer_counts_characters_and_spaces():
    examples, hypotheses = [example("a", "má ba")], [said("a", "ma b")]
    # m á ␠ b a against m a ␠ b: one substitution, one deletion over five characters
    assert corpus_scores(examples, hypotheses)["cer"] == pytest.approx(40.0)


# Trap 17.
def test_empty_reference_adds_insertions_but_no_words():
    rows = join([example("a", "..."), example("b", "một hai")], [said("a", "xin chào"), said("b", "một hai")])
    assert transcript_statistics(rows[TRANSCRIBE])["wer"].value == pytest.approx(100.0)
    assert corpus_scores([example("a", "...")], [said("a", "xin")]) == {}


# Trap 16.
def test_a_wrong_tone_is_a_wrong_word():
    assert corpus_scores([example("a", "ma má mà")], [said("a", "ma ma má")])["wer"] > 60


def test_corpus_scores_equal_the_libraries_own():
    examples, hypotheses = corpus(80)
    scores = corpus_scores(examples, hypotheses)
    rows = join(examples, hypotheses)
    wanted, heard = zip(*((row.reference, row.hypothesis) for row in rows[TRANSCRIBE]), strict=True)
    assert scores["wer"] == pytest.approx(100 * jiwer.wer(list(wanted), list(heard)))
    assert scores["cer"] == pytest.approx(100 * jiwer.cer(list(wanted), list(heard)))
    wanted, heard = zip(*((row.reference, row.hypothesis) for row in rows[TRANSLATE]), strict=True)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(heard, [wanted]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(heard, [wanted]).score)


def test_sacrebleu_statistics_of_a_part_score_as_that_part():
    wanted, heard = ["a b c d e", "x y z u v w", "m n o p"], ["a b c d", "x y z u v", "m q o p"]
    assert bleu_statistic(wanted, heard).subset([0, 1]).value == pytest.approx(
        sacrebleu.corpus_bleu(heard[:2], [wanted[:2]]).score
    )
    assert chrf_statistic(wanted, heard).subset([1, 2]).value == pytest.approx(
        sacrebleu.corpus_chrf(heard[1:], [wanted[1:]]).score
    )
    assert math.isnan(bleu_statistic([], []).value)


def test_signatures_name_the_settings():
    assert "tok:13a" in signatures()["bleu"] and "nc:6" in signatures()["chrf"]
    assert "tok:char" in signatures("char")["bleu"]


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ([said("a", "x")], r"no hypothesis for b \(transcribe\)"),
        ([said("a", "x"), said("b", "x"), said("a", "y")], "two hypotheses for a"),
        ([said("a", "x"), said("b", "x"), said("c", "y")], "unknown utterance or task: c"),
        ([], "nothing to score"),
    ],
)
def test_hypotheses_are_matched_by_id_and_task(hypotheses, message):
    with pytest.raises(ValueError, match=message):
        corpus_scores([example("a", "x"), example("b", "x")], hypotheses)


def test_order_of_hypotheses_does_not_matter_and_repeated_ids_are_refused():
    examples = [example("a", "một hai"), example("b", "ba bốn")]
    assert corpus_scores(examples, [said("b", "ba bốn"), said("a", "một hai")])["wer"] == 0
    with pytest.raises(ValueError, match="used twice: a"):
        corpus_scores([examples[0], examples[0]], [said("a", "x")])


# Trap 13.
def test_an_absent_translation_is_no_reference_and_the_word_nan_is_a_word():
    examples = [example("a", "một", "nan"), example("b", "hai")]
    hypotheses = [said("a", "nan", TRANSLATE), said("b", "nan", TRANSLATE)]
    rows = join(examples, hypotheses)[TRANSLATE]
    assert [(row.example.id, row.reference) for row in rows] == [("a", "nan")]


def test_translations_are_normalised_by_their_own_language():
    row = join([example("a", "x", "L'eau", language="mdw", target="fr")], [said("a", "l eau", TRANSLATE)])
    assert row[TRANSLATE][0].reference == row[TRANSLATE][0].hypothesis == "l eau"


def test_every_domain_has_its_scores_beside_those_of_all_rows():
    examples = [
        example("a", "một hai", domain="child"),
        example("b", "ba bốn", "ba bốn", domain="adult"),
        example("c", "năm sáu bảy"),
    ]
    hypotheses = [
        said("a", "một ba"),
        said("b", "ba bốn"),
        said("b", "ba bốn", TRANSLATE),
        said("c", "năm sáu"),
    ]
    scores = corpus_scores(examples, hypotheses)
    assert list(scores) == [
        "wer_adult", "cer_adult", "wer_child", "cer_child", "wer", "cer",
        "bleu_adult", "chrf_adult", "bleu", "chrf",
    ]  # fmt: skip
    assert (scores["wer_child"], scores["wer_adult"]) == (50.0, 0.0)
    assert scores["wer"] == pytest.approx(100 * 2 / 7)
    assert scores["chrf_adult"] == scores["chrf"] == 100.0


def test_a_domain_does_not_take_the_name_of_a_score():
    examples = [example("a", "가 나", language="ko", domain="spaces"), example("b", "다라", language="ko")]
    scores = corpus_scores(examples, [said("a", "가 나"), said("b", "다 라")])
    assert scores["cer_spaces"] == pytest.approx(100 / 5) and scores["wer_spaces"] == 0.0


def test_a_domain_without_reference_words_has_no_score():
    examples = [example("a", "...", domain="silent"), example("b", "một", domain="loud")]
    assert set(corpus_scores(examples, [said("a", "x"), said("b", "một")])) == {
        "wer", "cer", "wer_loud", "cer_loud",
    }  # fmt: skip
