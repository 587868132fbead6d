"""Accuracy and errors by length, domain and training vocabulary, on rows counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from eval_assets import corpus, said
from eval_assets import example as make

from training.data.example import AudioRef, Example
from training.evaluation.breakdown import (
    accuracy,
    by_domain,
    by_duration,
    by_vocabulary,
    domain_gap,
    drawing,
    worst,
)
from training.evaluation.evaluate import evaluate
from training.evaluation.report import build_report
from training.evaluation.rows import Row, make_row
from training.evaluation.selected_rows import select_rows
from training.evaluation.stored import load_results
from training.evaluation.word_alignment import Alignments, align_words

DRAW = drawing(50, 0)
TRAINING = ["a a a a a a a a a a b", "b c"]


def row(name: str, reference: str, hypothesis: str, seconds: float = 1.0, domain: str | None = None) -> Row:
    found = Example(
        id=name,
        audio=AudioRef(path="x.wav"),
        duration=seconds,
        texts={"transcribe": reference},
        language="en",
        domain=domain,
    )
    return make_row(found, "transcribe", reference, hypothesis)


def aligned(rows: list[Row]) -> Alignments:
    return align_words([r.reference for r in rows], [r.hypothesis for r in rows])


ROWS = [
    row("u0", "a b c", "a b c", 1.0, "child"),
    row("u1", "a d", "a x y", 3.0, "adult"),  # one substitution, one insertion
    row("u2", "a a b d", "a", 12.0, "adult"),  # three deletions
    row("u3", "c", "c", 30.0, "child"),
]


def test_accuracy_by_hand() -> None:
    found = accuracy(ROWS, aligned(ROWS), DRAW)
    assert found["words"]["value"] == pytest.approx(100 * (1 - 5 / 10))
    assert found["words_found"]["value"] == pytest.approx(100 * 6 / 10)
    assert found["utterances"]["value"] == pytest.approx(50.0)
    assert found["words"]["low"] <= found["words"]["value"] <= found["words"]["high"]


def test_groups_hold_every_row_once() -> None:
    lengths = by_duration(ROWS, DRAW)
    assert {name: group["rows"] for name, group in lengths.items()} == {
        "0-2 s": 1,
        "2-5 s": 1,
        "10-20 s": 1,
        "20 s and more": 1,
    }
    assert lengths["2-5 s"]["wer"]["value"] == pytest.approx(100.0)
    domains = by_domain(ROWS, DRAW)
    assert domains["adult"]["wer"]["value"] == pytest.approx(100 * 5 / 6)
    assert domains["child"]["wer"]["value"] == 0.0
    assert by_domain([row("u", "a", "a")], DRAW) == {}


def test_vocabulary_by_hand() -> None:
    found = by_vocabulary(ROWS, aligned(ROWS), TRAINING, DRAW)
    assert found is not None and found["training_words"] == 3
    counts = {name: (band["count"], band["of"]) for name, band in found["word_errors"].items()}
    # "d" was never heard; "c" once, "b" twice, "a" ten times in training.
    assert counts == {"unseen": (2, 2), "once": (0, 2), "2-9": (1, 2), "10 or more": (1, 4)}
    assert found["rows_with_unseen"]["rows"] == 2
    assert found["rows_without_unseen"]["wer"]["value"] == 0.0
    assert by_vocabulary(ROWS, aligned(ROWS), [], DRAW) is None


def test_vocabulary_is_compared_after_normalisation() -> None:
    rows = [row("u", "Hello, World!", "hello")]
    found = by_vocabulary(rows, aligned(rows), ["HELLO world."], DRAW)
    assert found is not None and "unseen" not in found["word_errors"]


def test_worst_come_first_and_perfect_ones_never() -> None:
    found = worst(ROWS, aligned(ROWS))
    assert [(line["id"], line["errors"], line["words"]) for line in found] == [("u1", 2, 2), ("u2", 3, 4)]
    assert found[0]["wer"] == pytest.approx(100.0)
    empty = [row("e", "", "x y")]
    assert worst(empty, aligned(empty))[0]["wer"] is None
    assert len(worst(ROWS, aligned(ROWS), top=1)) == 1


def test_evaluation_and_report_carry_the_breakdown(tmp_path: Path) -> None:
    examples, hypotheses = corpus(40, drop=0.3)
    found = evaluate(examples, hypotheses, meta={}, resamples=20, train_texts=["em anh đi xem phim"])
    report = found.report
    assert report["accuracy"]["words"]["value"] == pytest.approx(100 - report["scores"]["wer"]["value"])
    assert sum(group["rows"] for group in report["by_duration"].values()) == 40
    assert report["by_vocabulary"]["word_errors"]["unseen"]["of"] > 0
    assert len(report["worst"]) == 20
    assert "accuracy:" in found.summary() and "words missed" in found.summary()
    found.write(tmp_path, "run")
    page = build_report(load_results(tmp_path))
    assert "Accuracy:" in page and "by how often training had them" in page and "2-5 s" in page


def test_report_shows_the_ten_worst_worst_first(tmp_path: Path) -> None:
    examples = [make(f"u{n:02d}", " ".join("abcdefghij"), tags=["en"] * 10) for n in range(30)]
    hypotheses = [said(f"u{n:02d}", " ".join("abcdefghij"[: max(0, 10 - n // 2)])) for n in range(30)]
    evaluate(examples, hypotheses, meta={}, resamples=20).write(tmp_path, "run")
    selected = [row for row in select_rows(load_results(tmp_path)) if row.why == "worst"]
    assert len(selected) == 10
    assert [sum(s.errors for s in row.hypotheses) for row in selected] == sorted(
        (sum(s.errors for s in row.hypotheses) for row in selected), reverse=True
    )


def test_the_gap_of_each_domain_to_the_largest() -> None:
    rows = [*ROWS, row("u4", "a b", "a b", 1.0, "child"), row("u5", "a", "b", 1.0, "elder")]
    found = domain_gap(rows, resamples=200, seed=0)
    assert found is not None and found["base"] == "child" and list(found["gaps"]) == ["adult", "elder"]
    gap = found["gaps"]["adult"]["wer"]
    assert (gap["a"], gap["b"]) == (pytest.approx(100 * 5 / 6), 0.0)
    assert gap["value"] == pytest.approx(gap["a"]) and gap["low"] <= gap["value"] <= gap["high"]
    assert (gap["unit"], gap["units"], gap["rows"]) == ("utterance", 5, 5)
    assert domain_gap(ROWS[:1] + ROWS[3:], resamples=20, seed=0) is None


def test_evaluation_summary_and_report_show_domains_and_their_gap(tmp_path: Path) -> None:
    examples = [
        make(f"u{n}", "가나 다라마", language="ko", domain="normal" if n < 6 else "dyslexic", speaker=f"s{n}")
        for n in range(10)
    ]
    hypotheses = [said(f"u{n}", "가나 다라마" if n < 6 else "가 나라마") for n in range(10)]
    found = evaluate(examples, hypotheses, meta={}, resamples=50)
    assert list(found.report["by_domain"]) == ["dyslexic", "normal"]
    gap = found.report["domain_gap"]["gaps"]["dyslexic"]
    assert gap["cer"]["value"] == pytest.approx(20.0) and gap["cer_spaces"]["value"] > 20
    assert [line["domain"] for line in found.predictions] == ["normal"] * 6 + ["dyslexic"] * 4
    lines = found.summary().splitlines()
    assert any(line.startswith("CER with spaces ") for line in lines)
    assert any(line.startswith("domain dyslexic: WER 100.0 [100.0, 100.0], CER 20.0 ") for line in lines)
    assert any(line.startswith("domain gap, dyslexic − normal: WER 100.0 ") for line in lines)
    found.write(tmp_path, "run")
    page = build_report(load_results(tmp_path))
    assert "domain gap, in points" in page and "dyslexic − normal" in page and "CER with spaces" in page
