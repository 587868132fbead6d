"""Confidence: errors by hand, maps that mend it on words that they have not seen, files that say what they belong to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eval_assets import example, said
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.data.example import Hypothesis, SpokenWord
from training.decoding.calibrated import Calibration, logits, read_calibration, usable, weights_of
from training.decoding.ctc_setup import SearchOptions
from training.evaluation.calibration import (
    Judged,
    brier,
    calibration_error,
    confidence_section,
    fit,
    isotonic,
    judge_words,
    mass_edges,
    platt,
    reliability,
    score_confidence,
    width_edges,
)


def heard(name: str, *words: tuple[str, float]) -> Hypothesis:
    spoken = tuple(SpokenWord(text=text, start=0.0, end=0.1, confidence=c) for text, c in words)
    return replace(said(name, " ".join(text for text, _ in words)), words=spoken)


def judged(confidence: np.ndarray, right: np.ndarray, per_row: int = 5) -> Judged:
    rows = np.arange(len(right)) // per_row
    examples = [example(f"u{n}", "x") for n in range(int(rows[-1]) + 1)]
    return Judged(np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool), rows, examples)


def overconfident(words: int, seed: int) -> Judged:
    """Right with probability p, confidence the fourth root of p."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 0.99, size=words)
    return judged(chance**0.25, rng.random(words) < chance)


def test_a_word_is_right_where_the_wer_matches_it() -> None:
    rows = [example("a", "One, two three", language="en"), example("b", "x"), example("c", None, "y")]
    found = judge_words(
        rows, [heard("a", ("one", 0.9), ("–", 0.1), ("too", 0.4), ("three", 0.8)), said("b", "x")]
    )
    assert found.confidence.tolist() == [0.9, 0.4, 0.8] and found.right.tolist() == [True, False, True]
    assert found.row.tolist() == [0, 0, 0] and [row.id for row in found.examples] == ["a"]


def test_errors_by_hand() -> None:
    """Bins of a fifteenth: 0.9 and 0.92 share one (0.8667 to 0.9333), 0.5 has its own."""
    found = judged(np.array([0.9, 0.92, 0.5, 0.5]), np.array([1, 0, 1, 0]))
    assert calibration_error(found, width_edges()).value == pytest.approx(abs(0.9 + 0.92 - 1) / 4)
    assert brier(found).value == pytest.approx((0.01 + 0.92**2 + 0.25 + 0.25) / 4, abs=1e-6)
    bins = reliability(found, width_edges())
    assert [(one["words"], one["right"]) for one in bins] == [(2, 0.5), (2, 0.5)]
    assert [one["confidence"] for one in bins] == pytest.approx([0.5, 0.91])


def test_the_edges_of_bins() -> None:
    """0 is in the first bin, 1 in the last, a border in the bin below it."""
    found = judged(np.array([0.0, 1 / 15, 1.0]), np.array([0, 0, 1]))
    assert [one["words"] for one in reliability(found, width_edges())] == [2, 1]
    assert calibration_error(found, width_edges()).value == pytest.approx(1 / 45, abs=1e-6)
    equal = np.full(40, 0.7)
    assert mass_edges(equal).tolist() == [0.0, 0.7, 1.0]
    counts = [
        one["words"]
        for one in reliability(overconfident(1500, 0), mass_edges(overconfident(1500, 0).confidence))
    ]
    assert len(counts) == 15 and min(counts) >= 95


def test_honest_confidence_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=4000)
    honest = score_confidence(judged(chance, rng.random(4000) < chance), resamples=100, seed=0)
    assert honest["ece"]["value"] < 0.03 and honest["ece_equal_mass"]["value"] < 0.03
    assert honest["brier"]["value"] == pytest.approx(1 / 6, abs=0.01)
    assert honest["ece"]["low"] <= honest["ece"]["high"] and honest["ece"]["unit"] == "utterance"


@pytest.mark.parametrize("make", [isotonic, platt])
def test_a_map_mends_words_that_it_has_not_seen(make) -> None:
    fresh = overconfident(4000, seed=1)
    assert calibration_error(fresh, width_edges()).value > 0.2
    mended = replace(fresh, confidence=make(overconfident(2000, seed=0))(fresh.confidence))
    assert calibration_error(mended, width_edges()).value < 0.05
    assert brier(mended).value < brier(fresh).value


def test_the_map_that_is_better_by_cross_validation_is_kept() -> None:
    """A step at 0.5: no logistic curve of the logit has it. A shifted logit: Platt's map is exact."""
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.02, 0.98, size=3000)
    step = np.where((confidence > 0.4) & (confidence < 0.6), 0.95, 0.1) * (confidence < 0.6) + 0.96 * (
        confidence >= 0.6
    )
    curve = 1 / (1 + np.exp(-(2 * logits(confidence) - 1)))
    found, figures = fit(judged(confidence, rng.random(3000) < step))
    assert found.method == "isotonic" and figures["isotonic"]["brier"] < figures["platt"]["brier"]
    found, figures = fit(judged(confidence, rng.random(3000) < curve))
    assert found.method == "platt" and figures["platt"]["brier"] < figures["raw"]["brier"]
    assert (found.slope, found.intercept) == (pytest.approx(2, abs=0.25), pytest.approx(-1, abs=0.25))


def test_cross_validation_leaves_whole_utterances_out() -> None:
    """Words of one utterance share confidence and outcome, at random: whoever has seen the others knows, else nobody."""
    rng = np.random.default_rng(3)
    confidence, right = (np.repeat(values, 20) for values in (rng.random(60), rng.random(60) < 0.5))
    _, figures = fit(judged(confidence, right, per_row=20))
    assert figures["isotonic"]["brier"] > 0.24


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("make", [isotonic, platt, lambda found: fit(found)[0]])
def test_words_that_are_all_right_or_all_wrong_leave_a_doubt(make, right: int) -> None:
    found = make(judged(np.linspace(0.2, 1.0, 100), np.full(100, right)))
    values = found(np.array([0.0, 0.5, 1.0]))
    assert ((values > 0) & (values < 1)).all() and (np.abs(values - right) < 0.2).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=5, max_size=60))
def test_maps_keep_the_order_and_survive_their_file(tmp_path_factory, words) -> None:
    folder = tmp_path_factory.mktemp("model")
    found = isotonic(judged(np.array([c for c, _ in words]), np.array([r for _, r in words])))
    grid = np.linspace(0, 1, 101)
    values = found(grid)
    assert (np.diff(values) >= -1e-12).all() and values.min() > 0 and values.max() < 1
    found.write(folder)
    again = read_calibration(folder)
    assert again is not None and (again(grid) == values).all()


def test_a_hypothesis_with_calibrated_words() -> None:
    half = Calibration(method="isotonic", knots=((0.0, 0.1), (1.0, 0.6)))
    one = half.apply(heard("a", ("x", 1.0), ("y", 0.0)))
    assert [word.confidence for word in one.words] == pytest.approx([0.6, 0.1])
    assert one.confidence == pytest.approx((0.6 * 0.1) ** 0.5)
    assert half.apply(said("a", "x")) == said("a", "x")
    assert Calibration(method="platt")(np.array([0.3, 0.8])) == pytest.approx([0.3, 0.8])


def test_a_calibration_belongs_to_its_weights_and_its_decoding(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(range(256)) * 4000)
    made = Calibration(
        method="platt",
        slope=2.0,
        decoding={"beam_width": 1},
        weights=weights_of(tmp_path),
        fitted={"words": 60},
    )
    made.write(tmp_path)
    found = read_calibration(tmp_path)
    assert found == made
    kept, note = usable(found, tmp_path, {"beam_width": 1})
    assert kept == made and "confidence is calibrated (platt" in note
    other, note = usable(found, tmp_path, {"beam_width": 4, "lm_weight": 0.5})
    assert other is None and note.endswith(
        "fitted with another decoding, beam_width 1 instead of 4, lm_weight None instead of 0.5"
    )
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert usable(found, tmp_path, {"beam_width": 1}) == (
        None,
        f"confidence is the model's own: {tmp_path / 'calibration.json'} is not used, since it was fitted with other weights",
    )
    assert usable(None, tmp_path, {})[0] is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found | {"format": 2},
        lambda found: found | {"method": "magic"},
        lambda found: found | {"method": "isotonic", "knots": []},
        lambda found: found | {"method": "isotonic", "knots": [[0.5, 0.1], [0.5, 0.2]]},
        lambda found: found | {"knots": [[1, 2, 3]]},
        lambda found: found | {"slope": "steep"},
        lambda found: found | {"more": 1},
        lambda found: {"format": 1},
        lambda found: [1],
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage) -> None:
    path = Calibration(method="platt").write(tmp_path)
    assert read_calibration(tmp_path) == Calibration(method="platt")
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"calibration\.json: not a readable calibration"):
        read_calibration(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"polyvox calibrate"):
        read_calibration(tmp_path)


def test_the_decoding_that_matters(tmp_path: Path) -> None:
    from tone_recogniser import recogniser

    arpa = tmp_path / "a.arpa"
    arpa.write_text("one")
    frames, text = (recogniser(ctc=ctc).architecture for ctc in (True, False))
    assert SearchOptions(lm_weight=0.1).identity(frames) == {"beam_width": 1, "search": "own"}
    assert SearchOptions(beam_width=3).identity(text) == {"beam_width": 3}
    with_model = SearchOptions(lm=arpa).identity(frames)
    arpa.write_text("two")
    assert with_model["beam_width"] == 10
    assert SearchOptions(lm=arpa).identity(frames) != with_model


def test_the_section_shows_both_and_says_which() -> None:
    rows = [example(f"u{n}", "a b", language="en") for n in range(30)]
    raw = [heard(f"u{n}", ("a", 0.99), ("b" if n % 3 else "c", 0.9)) for n in range(30)]
    mended = [Calibration(method="isotonic", knots=((0.9, 2 / 3), (0.99, 1.0))).apply(one) for one in raw]
    section = confidence_section(rows, mended, raw, "calibrated", resamples=50, seed=0)
    assert section is not None and section["note"] == "calibrated"
    assert section["ece"]["value"] == pytest.approx(0, abs=1e-6)
    assert section["raw"]["ece"]["value"] == pytest.approx((0.01 + 0.9 - 2 / 3) / 2, abs=1e-6)
    assert (section["words"], section["right"]) == (60, 50)
    assert confidence_section(rows, [said(f"u{n}", "a b") for n in range(30)], resamples=5, seed=0) is None
