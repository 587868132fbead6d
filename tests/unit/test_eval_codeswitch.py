from __future__ import annotations

import pytest
from eval_assets import corpus, example, said

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.codeswitch import by_word_language, spans, word_tags, words_replaced
from training.evaluation.rows import join, make_row
from training.evaluation.translation import translation_section
from training.evaluation.word_alignment import align_words

QUICK = {"resamples": 100, "seed": 0}


def languages(pairs, tags):
    examples = [
        example(str(n), wanted, tags=t) for n, ((wanted, _), t) in enumerate(zip(pairs, tags, strict=True))
    ]
    rows = join(examples, [said(str(n), heard) for n, (_, heard) in enumerate(pairs)])[TRANSCRIBE]
    aligned = align_words([row.reference for row in rows], [row.hypothesis for row in rows])
    return by_word_language(rows, aligned, **QUICK)


def test_errors_by_word_language_by_hand():
    found = languages(
        [("em xem TikTok hay lắm", "em xem tóp hay nhé lắm"), ("anh đi", "anh")],
        [["vi", "vi", "en", "vi", "vi"], ["vi", "vi"]],
    )
    # en: TikTok wrong, 1 of 1. vi: "nhé" put in after "hay", "đi" left out: 2 errors over 6 words.
    assert (found["wer"]["en"]["count"], found["wer"]["en"]["of"]) == (1, 1)
    assert (found["wer"]["vi"]["count"], found["wer"]["vi"]["of"], found["wer"]["vi"]["insertions"]) == (
        2,
        6,
        1,
    )
    assert found["embedded_word_recall"]["value"] == 0
    # beside the switches stand xem, TikTok, hay; em and lắm do not; the second row does not switch
    assert (found["switch_points"]["at"]["count"], found["switch_points"]["at"]["of"]) == (1, 3)
    assert (found["switch_points"]["elsewhere"]["count"], found["switch_points"]["elsewhere"]["of"]) == (0, 2)
    assert found["matrix_language"] == "vi" and found["tags"] == "manifest"
    assert "syllable" in found["note"]


def test_english_only_rows_have_no_embedded_words():
    found = languages(
        [("hello there", "x"), ("em có meeting nha", "em có meeting nha")],
        [["en"] * 2, ["vi", "vi", "en", "vi"]],
    )
    assert (found["embedded_word_recall"]["count"], found["embedded_word_recall"]["of"]) == (1, 1)


def test_numbers_and_fillers_are_no_embedded_english():
    found = languages([("em mua 20 file", "em mua file")], [["vi", "vi", "other", "en"]])
    assert (found["embedded_word_recall"]["count"], found["embedded_word_recall"]["of"]) == (1, 1)


def test_tags_follow_words_through_normalisation():
    row = make_row(
        example("a", "Dùng Wi-Fi – nhé!", tags=["vi", "en", "other", "vi"]),
        TRANSCRIBE,
        "Dùng Wi-Fi – nhé!",
        "",
    )
    assert row.reference == "dùng wi fi nhé"
    assert word_tags(row) == ("vi", "en", "en", "vi")


def test_tagger_serves_where_the_manifest_is_silent_and_only_vietnamese_speech():
    tagged = make_row(example("a", "em có meeting"), TRANSCRIBE, "em có meeting", "")
    assert word_tags(tagged) == ("vi", "vi", "en")
    assert word_tags(make_row(example("a", "na", language="mdw"), TRANSCRIBE, "na", "")) is None


def test_wrong_number_of_tags_names_the_place():
    row = make_row(example("a", "một hai", tags=["vi"]), TRANSCRIBE, "một hai", "")
    with pytest.raises(UserError, match=r"test\.tsv:a: word_languages has 1 codes for the 2 words"):
        word_tags(row)


def pair(transcript, translation, heard):
    found = example("a", transcript, translation)
    return make_row(found, TRANSCRIBE, transcript, ""), make_row(found, TRANSLATE, translation, heard)


def test_spans_are_what_the_translation_puts_in():
    transcript, translation = pair(
        "kênh TikTok của em có deadline", "kênh mạng xã hội của em có hạn chót", ""
    )
    assert [(s.foreign, s.start, s.end) for s in spans(transcript, translation)] == [
        (("tiktok",), 1, 4),
        (("deadline",), 7, 9),
    ]


@pytest.mark.parametrize(
    ("heard", "replaced", "partly", "gone", "recalled"),
    [
        ("kênh mạng xã hội của em", 1, 1, 1, 3),
        ("kênh TikTok của em", 0, 0, 0, 0),  # a copy replaces nothing
        ("kênh của em", 0, 0, 1, 0),  # gone, but nothing in its place
        ("kênh mạng xã của em", 0, 1, 1, 2),
        ("kênh mạng xã hội TikTok của em", 0, 0, 0, 3),
        ("", 0, 0, 1, 0),
    ],
)
def test_words_replaced(heard, replaced, partly, gone, recalled):
    found = words_replaced([pair("kênh TikTok của em", "kênh mạng xã hội của em", heard)], **QUICK)
    counts = [
        found[key]["count"] for key in ("replaced", "replaced_partly", "gone", "inserted_words_recalled")
    ]
    assert counts == [replaced, partly, gone, recalled]
    assert found["replaced"]["of"] == 1 and found["inserted_words_recalled"]["of"] == 3


def test_a_foreign_word_that_the_translation_keeps_is_not_counted():
    assert words_replaced([pair("em thích TikTok", "em thích TikTok", "em")], **QUICK) is None


def section(seed=0, drop=0.1, translate=None):
    examples, hypotheses = corpus(80, drop=drop, seed=seed)
    if translate:
        own = {h.id: h.text for h in hypotheses if h.task == TRANSCRIBE}
        hypotheses = [
            h if h.task == TRANSCRIBE else said(h.id, translate(own, h), TRANSLATE) for h in hypotheses
        ]
    rows = join(examples, hypotheses)
    return translation_section(rows[TRANSLATE], rows[TRANSCRIBE], **QUICK)


# Trap 18.
def test_copying_is_reported_beside_the_model_and_scores_high():
    found = section()
    assert found["rows"] == {"all": 80, "changed": 20, "unchanged": 60}
    assert found["all"]["copy_of_reference_transcript"]["bleu"]["value"] > 25
    assert found["unchanged"]["copy_of_reference_transcript"]["bleu"]["value"] == pytest.approx(100)
    changed = found["changed"]
    assert changed["ours"]["bleu"]["value"] > changed["copy_of_own_transcript"]["bleu"]["value"]
    assert found["paired_on_changed"]["ours_minus_copy_of_own_transcript"]["bleu"]["low"] > 0


# Trap 18.
def test_a_system_that_copies_is_seen_through():
    found = section(translate=lambda own, h: own[h.id])
    for metric in ("bleu", "chrf"):
        gap = found["paired_on_changed"]["ours_minus_copy_of_own_transcript"][metric]
        assert (gap["value"], gap["low"], gap["high"]) == (0, 0, 0)
    assert found["words_replaced"]["replaced"]["value"] == 0


def test_perfect_translations_replace_everything():
    found = section(drop=0.0)
    assert found["words_replaced"]["replaced"]["value"] == 100
    assert found["changed"]["ours"]["bleu"]["value"] == pytest.approx(100)


def test_without_own_transcripts_only_the_reference_is_copied():
    examples, hypotheses = corpus(20)
    rows = join(examples, [h for h in hypotheses if h.task == TRANSLATE])
    found = translation_section(rows[TRANSLATE], [], **QUICK)
    assert set(found["all"]) == {"ours", "copy_of_reference_transcript"}
