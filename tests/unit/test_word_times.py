"""Errors of word times: by hand, and what must hold whatever the times are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eval_assets import example, said
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.data.example import Example, Hypothesis, SpokenWord, Word
from training.engine.selection import check_metric
from training.evaluation.evaluate import evaluate
from training.evaluation.intervals import expanded_tail, median_interval, units_of
from training.evaluation.quick_scores import corpus_scores, given_scores
from training.evaluation.report import build_report
from training.evaluation.stored import Result
from training.evaluation.word_matches import match_words
from training.evaluation.word_times import Draws, error_ratio, not_monotone, score_times, timing
from training.evaluation.word_times_section import word_times_section
from training.evaluation.words import WordEvidence, read_teacher

Stretch = tuple[str, float, float]


def words(*stretches: Stretch) -> tuple[SpokenWord, ...]:
    return tuple(SpokenWord(text=t, start=a, end=b, confidence=0.9) for t, a, b in stretches)


def timed(name: str, *stretches: Stretch, duration: float = 2.0, **more: str) -> Example:
    row = example(name, " ".join(text for text, _, _ in stretches), language="en", duration=duration, **more)
    return replace(row, words=tuple(Word(text=t, start=a, end=b) for t, a, b in stretches))


def heard(name: str, *stretches: Stretch) -> Hypothesis:
    return replace(said(name, " ".join(text for text, _, _ in stretches)), words=words(*stretches))


A = timed("a", ("one", 0.10, 0.40), ("two", 0.50, 0.90))
B = timed("b", ("three", 0.20, 0.60))
SAID = [words(("one", 0.13, 0.40), ("two", 0.40, 0.95)), words(("three", 0.20, 0.80), ("four", 1.0, 1.2))]


def scores(examples: Sequence[Example], spoken: Sequence[Sequence[SpokenWord]]) -> dict:
    return score_times(timing(examples, spoken), Draws.over(examples, 100, 0))


def test_by_hand() -> None:
    """Starts: +30, −100, 0 ms. Ends: 0, +50, +200 ms."""
    found = scores([A, B], SAID)
    assert (found["utterances"], found["reference_words"], found["said_words"]) == (2, 3, 4)
    assert found["matched_words"] == 3 and found["matched"]["value"] == 100
    start, end = found["start"], found["end"]
    assert start["mean_absolute_error"]["value"] == pytest.approx(130 / 3)
    assert start["median_absolute_error"]["value"] == pytest.approx(30)
    assert start["bias"]["value"] == pytest.approx(-70 / 3)
    assert [start["within"][bound]["value"] for bound in ("20", "50", "100", "200")] == pytest.approx(
        [100 / 3, 200 / 3, 100, 100]
    )
    assert end["mean_absolute_error"]["value"] == pytest.approx(250 / 3)
    assert end["median_absolute_error"]["value"] == pytest.approx(50)
    assert end["bias"]["value"] == pytest.approx(250 / 3)
    assert [end["within"][bound]["value"] for bound in ("20", "50", "100", "200")] == pytest.approx(
        [100 / 3, 200 / 3, 200 / 3, 100]
    )
    # One word is within 50 ms at both ends, two within 100, three within 200; 3 + 4 words.
    assert [found["f1"][bound]["value"] for bound in ("20", "50", "100", "200")] == pytest.approx(
        [0, 200 / 7, 400 / 7, 600 / 7]
    )
    overlaps = [0.27 / 0.30, 0.40 / 0.55, 0.40 / 0.60]
    assert found["iou"]["value"] == pytest.approx(100 * sum(overlaps) / 3, abs=1e-3)
    assert found["not_monotone"] == {"count": 0, "of": 4}
    assert start["bias"]["unit"] == "utterance" and start["bias"]["units"] == 2


def test_wrong_and_missing_words_have_no_errors_but_count_for_f1() -> None:
    row = timed("a", ("one", 0.0, 0.4), ("two", 0.5, 0.9), ("three", 1.0, 1.4))
    found = scores([row], [words(("one", 0.0, 0.4), ("too", 0.5, 0.9))])
    assert found["matched_words"] == 1 and found["start"]["mean_absolute_error"]["value"] == 0
    assert found["f1"]["20"]["value"] == pytest.approx(200 / 5)
    empty = scores([row], [()])
    assert empty["start"]["mean_absolute_error"]["value"] is None
    assert empty["start"]["median_absolute_error"]["value"] is None
    assert empty["f1"]["200"]["value"] == 0 and empty["matched"]["value"] == 0


def test_words_are_matched_as_the_wer_matches_them() -> None:
    found = match_words([["Hello,", "–", "World"]], [["hello", "big", "world!"]], ["en"])[0]
    assert (found.pairs, found.references, found.hypotheses) == (((0, 0), (2, 2)), (0, 2), (0, 1, 2))
    # French parts l'eau in two; half of it is not the word.
    whole, half = match_words([["L'eau", "va"]] * 2, [["l’eau", "va"], ["eau", "va"]], ["fr"] * 2)
    assert whole.pairs == ((0, 0), (1, 1)) and half.pairs == ((1, 1),)
    assert match_words([], [], []) == []


def test_words_that_go_back() -> None:
    assert not_monotone(words(("a", 0.0, 0.5), ("b", 0.5, 0.9), ("c", 0.5, 0.9))) == 0
    assert not_monotone(words(("a", 0.3, 0.5), ("b", 0.2, 0.9), ("c", 1.0, 0.95))) == 2
    assert not_monotone(words(("a", 0.3, 0.2))) == 1
    assert not_monotone(()) == 0


TIMES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(1, 800), st.integers(-400, 400), st.integers(-400, 400)),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


def corpus(rows: list, shift: float = 0.0) -> tuple[list[Example], list[tuple[SpokenWord, ...]]]:
    """Utterances of different words, times in milliseconds: start, length, hypothesis minus reference of both ends."""
    examples, spoken = [], []
    for n, row in enumerate(rows):
        names = [f"w{n}x{k}" for k in range(len(row))]
        reference = [(w, a / 1000, (a + b) / 1000) for w, (a, b, _, _) in zip(names, row, strict=True)]
        found = [
            (w, (a + c) / 1000 + shift, (a + b + d) / 1000 + shift)
            for w, (a, b, c, d) in zip(names, row, strict=True)
        ]
        examples.append(timed(f"u{n}", *reference, duration=7.0))
        spoken.append(words(*found))
    return examples, spoken


@settings(max_examples=50, deadline=None)
@given(TIMES, st.integers(-2000, 2000))
def test_shifting_all_words_shifts_the_bias_and_no_more(rows: list, shift: int) -> None:
    before, after = timing(*corpus(rows)), timing(*corpus(rows, shift / 1000))
    assert (after.start - before.start == 1000 * shift).all()
    assert (after.end - before.end == 1000 * shift).all()
    assert (after.backwards == before.backwards).all()


@settings(max_examples=50, deadline=None)
@given(TIMES)
def test_what_always_holds(rows: list) -> None:
    examples, spoken = corpus(rows)
    found = scores(examples, spoken)
    for side in ("start", "end"):
        figures = found[side]
        differences = [(row[2 if side == "start" else 3]) for line in rows for row in line]
        assert figures["mean_absolute_error"]["value"] == pytest.approx(np.abs(differences).mean())
        assert figures["median_absolute_error"]["value"] == pytest.approx(np.median(np.abs(differences)))
        assert figures["bias"]["value"] == pytest.approx(np.mean(differences))
        shares = [score["value"] for score in figures["within"].values()]
        assert shares == sorted(shares)
    for bound, score in found["f1"].items():
        assert score["value"] <= min(found[side]["within"][bound]["value"] for side in ("start", "end"))
    assert 0 <= found["iou"]["value"] <= 100
    perfect = scores(examples, [words(*((w.text, w.start, w.end) for w in e.words)) for e in examples])
    assert perfect["f1"]["20"]["value"] == 100 and perfect["iou"]["value"] == pytest.approx(100, abs=1e-3)


def test_the_median_of_a_resample_is_that_of_the_words_drawn() -> None:
    rng = np.random.default_rng(0)
    values, rows = rng.exponential(size=41), rng.integers(0, 9, size=41)
    units = units_of([example(str(n), "x") for n in range(9)])
    found = median_interval(values, rows, units, resamples=300, seed=5)
    draws = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=200)
    more = np.random.default_rng(5)
    more.multinomial(9, np.full(9, 1 / 9), size=200)
    draws = np.concatenate([draws, more.multinomial(9, np.full(9, 1 / 9), size=100)])
    medians = [np.median(np.repeat(values, draw[rows])) for draw in draws]
    assert found.value == np.median(values)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(medians, [expanded_tail(9), 1 - expanded_tail(9)]))
    )


def test_evenly_spread_words_and_a_teacher_stand_beside() -> None:
    """Two words of four letters over two seconds lie at 0 and 1 s when they are spread."""
    row = timed("a", ("wood", 0.5, 0.9), ("fire", 1.1, 1.5), speaker="s", domain="d")
    other = timed("b", ("wood", 0.4, 0.9), ("fire", 1.2, 1.5), speaker="t")
    own = [heard(one.id, ("wood", 0.52, 0.9), ("fire", 1.18, 1.5)) for one in (row, other)]
    teacher = {"a": words(("wood", 0.5, 0.9), ("fire", 1.05, 1.5))}
    section = word_times_section([row, other], own, own, teacher, train_speakers=["t"], resamples=100, seed=0)
    assert section is not None
    model, even = section["given"]["model"], section["given"]["even"]
    assert model["start"]["mean_absolute_error"]["value"] == pytest.approx((20 + 80 + 120 + 20) / 4)
    assert even["start"]["mean_absolute_error"]["value"] == pytest.approx((500 + 100 + 400 + 200) / 4)
    assert model["even_over_model"]["value"] == pytest.approx(1200 / 240)
    taught = section["given"]["teacher"]
    assert (taught["utterances"], taught["start"]["bias"]["value"]) == (1, pytest.approx(-25))
    assert taught["even_over_model"]["value"] == pytest.approx(600 / 50)
    assert section["own"]["mode"] == "own" and "teacher" not in section["own"]
    groups = section["own"]["model"]["groups"]
    assert set(groups) == {"domain d", "speakers that are in training", "speakers that are not in training"}
    assert groups["speakers that are not in training"]["start_mean_absolute_error"]["value"] == pytest.approx(
        50
    )
    assert groups["domain d"]["start_within_50"]["value"] == pytest.approx(50)


def test_given_texts_must_be_the_references() -> None:
    rows = [timed("a", ("one", 0.0, 0.5)), timed("b", ("two", 0.0, 0.5)), timed("c", ("six", 0.0, 0.5))]
    given = [heard("a", ("One.", 0.1, 0.5)), heard("b", ("too", 0.0, 0.5)), said("c", "six")]
    section = word_times_section(rows, [], given, resamples=20, seed=0)
    assert section is not None and "own" not in section
    model = section["given"]["model"]
    assert (model["left_out"], model["without_times"], model["reference_words"]) == (1, 1, 2)
    assert model["start"]["bias"]["value"] == pytest.approx(100) and model["matched"]["value"] == 50


def test_no_section_without_times() -> None:
    untimed = example("a", "one")
    assert word_times_section([untimed], [heard("a", ("one", 0, 1))], resamples=10, seed=0) is None
    assert word_times_section([A], [said("a", "one two")], resamples=10, seed=0) is None


def test_ratio_of_errors() -> None:
    even, ours = timing([B], [words(("three", 0.5, 0.6))]), timing([B], [words(("three", 0.3, 0.6))])
    assert error_ratio(even, ours, Draws.over([B], 10, 0))["value"] == pytest.approx(3)
    perfect = timing([B], [words(("three", 0.2, 0.6))])
    assert error_ratio(even, perfect, Draws.over([B], 10, 0))["value"] is None


def test_checkpoints_can_be_chosen_by_onsets() -> None:
    own = [heard("a", ("one", 0.13, 0.4), ("two", 0.4, 0.95)), heard("b", ("tree", 0.0, 0.1))]
    quick = corpus_scores([A, B], own)
    assert quick["onset_mae"] == pytest.approx(65)
    assert given_scores([A, B], own) == {"onset_mae": pytest.approx(65)}
    assert given_scores([A], [said("a", "one two")]) == {}
    assert "onset_mae" not in corpus_scores([A], [said("a", "one two")])
    assert "onset_mae" not in corpus_scores([example("a", "one")], [heard("a", ("one", 0, 1))])
    check_metric("eval_onset_mae", [A], ("transcribe",), timed=True)
    with pytest.raises(UserError, match="tells no times of words"):
        check_metric("onset_mae", [A], ("transcribe",))
    with pytest.raises(UserError, match="the column words"):
        check_metric("onset_mae", [example("a", "one")], ("transcribe",), timed=True)


def test_an_evaluation_says_both_in_every_output() -> None:
    rows = [A, B]
    own = [
        replace(one, words=found)
        for one, found in zip((said("a", "one two"), said("b", "three four")), SAID, strict=True)
    ]
    given = [heard("a", ("one", 0.1, 0.4), ("two", 0.5, 0.9)), heard("b", ("three", 0.2, 0.6))]
    result = evaluate(rows, own, meta={}, resamples=50, words=WordEvidence(given=given, note="as it is"))
    lines = result.summary().splitlines()
    assert any(
        line.startswith("word times, reference text given, model (3 of 3 words matched): onsets 0.0 ms")
        for line in lines
    )
    assert any(
        line.startswith("word times, own text, model (3 of 3 words matched): onsets 43.3 ms")
        for line in lines
    )
    assert any(line.startswith("word times, own text, evenly spread") for line in lines)
    assert any(line.startswith("confidence of words: expected calibration error 0.") for line in lines)
    assert math.isfinite(result.report["word_times"]["own"]["model"]["even_over_model"]["value"])
    page = build_report([Result("run", json.loads(json.dumps(result.report)))])
    assert "reference text given" in page and "own text" in page and "Expected calibration error" in page
    assert page.count("evenly spread</td>") == 2


def test_a_teacher_is_read_or_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "timestamps_manifest.json"
    with pytest.raises(UserError, match="no such file"):
        read_teacher(path)
    path.write_text(
        json.dumps({"samples": [{"id": "a", "words": [{"word": "one", "start": 0, "end": 0.5}]}]})
    )
    assert read_teacher(path) == {"a": (SpokenWord(text="one", start=0.0, end=0.5, confidence=1.0),)}
    for wrong in (
        [],
        {"samples": 3},
        {"samples": [{"id": "a"}]},
        {"samples": [{"id": "a", "words": [{"word": "x", "start": "?", "end": 1}]}]},
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"timestamps_manifest\.json"):
            read_teacher(path)
