"""Confidence that means what it says: a map from a model's own confidence to the share of right words.

It is fitted on a validation split (`training.evaluation.calibration`), lies as ``calibration.json`` in the model's
folder, and holds for the weights and the decoding that it was fitted with, for no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.base.files import atomic_text
from training.base.system_files import listed
from training.data.example import Hypothesis, mean_confidence

NAME = "calibration.json"
METHODS = ("isotonic", "platt")
_FORMAT = 1
_PIECES, _PIECE = 16, 1 << 16
"""Number and size in bytes of the pieces of the weights that are hashed; a trained model differs in every piece."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A map of confidences that never falls where ``slope`` is above 0.

    method: ``isotonic`` interpolates between ``knots`` (raw, calibrated), by rising raw confidence; ``platt`` is the
    logistic function of ``slope`` times the raw confidence's logit plus ``intercept``.
    decoding: how the words were found (see `SearchOptions.identity`). weights: of `weights_of`.
    fitted: on what, and how well; for the reader.
    """

    method: str
    knots: tuple[tuple[float, float], ...] = ()
    slope: float = 1.0
    intercept: float = 0.0
    decoding: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, confidence: np.ndarray) -> np.ndarray:
        """Raw to calibrated, float64 of the same shape."""
        if self.method == "isotonic":
            raw, calibrated = np.array(self.knots, dtype=np.float64).T
            return np.interp(confidence, raw, calibrated)
        return logistic(self.slope * logits(confidence) + self.intercept)

    def apply(self, hypothesis: Hypothesis) -> Hypothesis:
        """The hypothesis with calibrated confidences, of its words and so of the whole."""
        if not hypothesis.words:
            return hypothesis
        values = self(np.array([word.confidence for word in hypothesis.words])).tolist()
        words = tuple(
            replace(word, confidence=value) for word, value in zip(hypothesis.words, values, strict=True)
        )
        return replace(hypothesis, words=words, confidence=mean_confidence(words))

    def write(self, folder: Path) -> Path:
        """``calibration.json`` in the folder."""
        path = folder / NAME
        text = json.dumps({"format": _FORMAT, **asdict(self)}, ensure_ascii=False, indent=2, allow_nan=False)
        with atomic_text(path) as file:
            file.write(text + "\n")
        return path


def logits(confidence: np.ndarray) -> np.ndarray:
    """Log odds, finite also at 0 and 1."""
    clipped = np.clip(np.asarray(confidence, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def logistic(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), which no number makes overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def read_calibration(folder: Path) -> Calibration | None:
    """None where the folder has none; `UserError` for a file that is damaged or of another version."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        if found.pop("format") != _FORMAT:
            raise ValueError("written by another version")
        calibration = Calibration(**{**found, "knots": _knots(found)})
        if calibration.method not in METHODS or not np.isfinite(calibration(np.array([0.0, 1.0]))).all():
            raise ValueError(f"no {' or '.join(METHODS)} map of confidences")
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not a readable calibration ({error}); delete it, or make it anew with polyvox calibrate"
        ) from error
    return calibration


def _knots(found: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    knots = tuple((float(raw), float(value)) for raw, value in found["knots"])
    if any(a[0] >= b[0] for a, b in pairwise(knots)):
        raise ValueError("knots: the raw confidences must rise")
    return knots


def usable(
    calibration: Calibration | None, folder: Path, decoding: Mapping[str, Any]
) -> tuple[Calibration | None, str]:
    """The calibration where it belongs to this decoding and these weights, and a line that says what is the case."""
    if calibration is None:
        return None, "confidence is the model's own: the folder has no calibration (polyvox calibrate)"
    if calibration.weights != weights_of(folder):
        return None, _not_used(folder, "it was fitted with other weights")
    if dict(calibration.decoding) != dict(decoding):
        return None, _not_used(
            folder, f"it was fitted with another decoding, {_told(calibration.decoding, decoding)}"
        )
    return calibration, f"confidence is calibrated ({calibration.method}, {folder / NAME})"


def _not_used(folder: Path, why: str) -> str:
    return f"confidence is the model's own: {folder / NAME} is not used, since {why}"


def _told(fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    keys = [key for key in {**fitted, **asked} if fitted.get(key) != asked.get(key)]
    return ", ".join(f"{key} {fitted.get(key)} instead of {asked.get(key)}" for key in keys)


def weights_of(folder: Path) -> str:
    """SHA-256 of the names, the sizes and some pieces of the folder's weights, those of an exported folder too."""
    digest = hashlib.sha256()
    kinds = ("*model*.safetensors", "model.bin", "ggml-model.bin", "*.onnx", "*.onnx.data")
    for path in sorted(path for kind in kinds for path in listed(folder, kind)):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()
