"""Whether a word of confidence 0.9 is right nine times out of ten, and the map that makes it so.

A word is right where the alignment of the WER matches it with a reference word. Confidences are those of the model,
of scores that no penalty has altered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Example, Hypothesis
from training.decoding.calibrated import Calibration, logistic, logits
from training.evaluation.intervals import Units, interval, units_of
from training.evaluation.rows import text_language
from training.evaluation.statistic import Statistic
from training.evaluation.word_matches import match_words
from training.evaluation.word_times import spoken_words

BINS = 15
FOLDS = 5
RULE = (
    f"expected calibration error: mean over the words of |confidence - share of right words| by {BINS} bins of equal width "
    f"(ece) or of equal numbers of words (ece_equal_mass), from 0 to 1; brier: mean squared difference of confidence and "
    "right (1) or wrong (0); a word is right where the alignment of the WER matches it; 95 % bootstrap, which finds "
    "errors a little larger than they are"
)
_SCALE = 1_000_000


@dataclass(frozen=True)
class Judged:
    """Words of all hypotheses. confidence: float64 ``[words]``. right: bool ``[words]``. row: the utterance of each,
    int64 ``[words]``, a place in ``examples``."""

    confidence: np.ndarray
    right: np.ndarray
    row: np.ndarray
    examples: Sequence[Example]

    def subset(self, kept: np.ndarray) -> Judged:
        """Some of the words; ``kept`` is bool ``[words]``."""
        return Judged(self.confidence[kept], self.right[kept], self.row[kept], self.examples)


def judge_words(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> Judged:
    """The words that have a confidence, right or wrong; those that the normalisation leaves nothing of are left out."""
    words = spoken_words(hypotheses)
    chosen = [row for row in examples if TRANSCRIBE in row.texts and row.id in words]
    matches = match_words(
        [example.texts[TRANSCRIBE].split() for example in chosen],
        [[word.text for word in words[example.id]] for example in chosen],
        [text_language(example, TRANSCRIBE) for example in chosen],
    )
    judged = [
        (words[example.id][place].confidence, place in right, row)
        for row, (example, found) in enumerate(zip(chosen, matches, strict=True))
        for right in [{place for _, place in found.pairs}]
        for place in found.hypotheses
    ]
    confidence, right, row = zip(*judged, strict=True) if judged else ((), (), ())
    return Judged(
        np.array(confidence, dtype=np.float64),
        np.array(right, dtype=bool),
        np.array(row, dtype=np.int64),
        chosen,
    )


def width_edges() -> np.ndarray:
    """Borders of bins of equal width."""
    return np.linspace(0.0, 1.0, BINS + 1)


def mass_edges(confidence: np.ndarray) -> np.ndarray:
    """Borders of bins of about equal numbers of words; fewer bins where many confidences are equal."""
    inner = np.quantile(confidence, np.linspace(0.0, 1.0, BINS + 1)[1:-1]) if len(confidence) else []
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def _bins(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of the bin of each word; a bin holds its upper border, as in Guo et al. (2017)."""
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def calibration_error(judged: Judged, edges: np.ndarray) -> Statistic:
    """Expected calibration error, 0 to 1. Rows are utterances; the sums are of millionths."""
    matrix = np.zeros((len(judged.examples), len(edges)), dtype=np.int64)
    excess = np.rint(_SCALE * (judged.confidence - judged.right)).astype(np.int64)
    np.add.at(matrix, (judged.row, _bins(judged.confidence, edges)), excess)
    matrix[:, -1] = np.bincount(judged.row, minlength=len(matrix))
    return Statistic(matrix, _mean_of_sizes)


def _mean_of_sizes(counts: Sequence[int]) -> float:
    return sum(abs(excess) for excess in counts[:-1]) / counts[-1] / _SCALE if counts[-1] else float("nan")


def brier(judged: Judged) -> Statistic:
    """Mean squared difference of confidence and outcome, 0 to 1."""
    matrix = np.zeros((len(judged.examples), 2), dtype=np.int64)
    squared = np.rint(_SCALE * np.square(judged.confidence - judged.right)).astype(np.int64)
    np.add.at(matrix, judged.row, np.stack([squared, np.ones_like(squared)], axis=1))
    return Statistic(matrix, _mean_of_sizes)


def score_confidence(judged: Judged, *, resamples: int, seed: int) -> dict[str, Any]:
    """Both errors, the Brier score and the bins of the reliability figure; scores from 0 to 1 with intervals."""
    units = units_of(judged.examples)

    def draw(statistic: Statistic) -> dict[str, Any]:
        return interval(statistic, units, resamples=resamples, seed=seed).to_json()

    return {
        "words": len(judged.right),
        "right": int(judged.right.sum()),
        "mean_confidence": float(judged.confidence.mean()),
        "ece": draw(calibration_error(judged, width_edges())),
        "ece_equal_mass": draw(calibration_error(judged, mass_edges(judged.confidence))),
        "brier": draw(brier(judged)),
        "bins": reliability(judged, width_edges()),
    }


def reliability(judged: Judged, edges: np.ndarray) -> list[dict[str, Any]]:
    """For each bin with words: its borders, the number of words, their mean confidence and the share of right words."""
    places = _bins(judged.confidence, edges)
    found = []
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        inside = places == number
        if inside.any():
            line = {"low": low, "high": high, "words": int(inside.sum())}
            means = {"confidence": judged.confidence[inside].mean(), "right": judged.right[inside].mean()}
            found.append({**line, **{name: float(value) for name, value in means.items()}})
    return found


def confidence_section(
    examples: Sequence[Example],
    hypotheses: Sequence[Hypothesis],
    raw: Sequence[Hypothesis] | None = None,
    note: str = "",
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Scores of the given confidences, and of the model's own (``raw``) where they differ; None where there are none.

    note: whether they are calibrated, and why not.
    """
    judged = judge_words(examples, hypotheses)
    if not len(judged.right):
        return None
    section = {"rule": RULE, "note": note, **score_confidence(judged, resamples=resamples, seed=seed)}
    if raw is not None:
        section["raw"] = score_confidence(judge_words(examples, raw), resamples=resamples, seed=seed)
    return section


# Fitting


def isotonic(judged: Judged) -> Calibration:
    """The best map that never falls. Nothing is surer than the number of words can show."""
    from sklearn.isotonic import IsotonicRegression

    bound = 1.0 / (len(judged.right) + 2)
    fitted = IsotonicRegression(y_min=bound, y_max=1 - bound, out_of_bounds="clip")
    fitted.fit(judged.confidence, judged.right.astype(np.float64))
    knots = zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True)
    return Calibration(method="isotonic", knots=tuple(knots))


def platt(judged: Judged) -> Calibration:
    """A logistic function of the logit (Platt, 1999), to his targets, which are never quite 0 or 1."""
    from scipy.optimize import minimize

    right = int(judged.right.sum())
    wrong = len(judged.right) - right
    targets = np.where(judged.right, (right + 1) / (right + 2), 1 / (wrong + 2))
    x = logits(judged.confidence)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters[0] * x + parameters[1]
        excess = logistic(z) - targets
        gradient = np.array([(excess * x).mean(), excess.mean()])
        return float((np.logaddexp(0.0, z) - targets * z).mean()), gradient

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x.tolist()
    return Calibration(method="platt", slope=slope, intercept=intercept)


FITS: dict[str, Callable[[Judged], Calibration]] = {"isotonic": isotonic, "platt": platt}


def fit(judged: Judged, *, seed: int = 0) -> tuple[Calibration, dict[str, Any]]:
    """The map with the lower Brier score by cross-validation, fitted on all words; and the figures of each.

    Whole units (see `units_of`) are left out at once.
    """
    figures = {"raw": _figures(judged)}
    folds = _folds(units_of(judged.examples), seed)[judged.row]
    for name, make in FITS.items():
        held_out = judged.confidence.copy()
        for fold in np.unique(folds):
            held_out[folds == fold] = make(judged.subset(folds != fold))(judged.confidence[folds == fold])
        figures[name] = _figures(replace(judged, confidence=held_out))
    best = min(FITS, key=lambda name: figures[name]["brier"])
    return FITS[best](judged), figures


def _figures(judged: Judged) -> dict[str, float]:
    return {"ece": calibration_error(judged, width_edges()).value, "brier": brier(judged).value}


def _folds(units: Units, seed: int) -> np.ndarray:
    """Number of the fold of each row."""
    order = np.random.default_rng(seed).permutation(units.count)
    return (order % FOLDS)[units.index]
