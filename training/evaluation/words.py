"""The parts of an evaluation that are about single words: their times, and their confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.example import Example, Hypothesis, SpokenWord
from training.evaluation.calibration import confidence_section
from training.evaluation.stored import read_json
from training.evaluation.word_times_section import word_times_section


@dataclass(frozen=True, kw_only=True)
class WordEvidence:
    """Further data about the words, beside the hypotheses.

    given: hypotheses whose text is the reference's; None for a model that cannot place given words.
    raw: the hypotheses with the model's own confidences, where those that are scored are calibrated.
    note: whether confidences are calibrated, and why not.
    teacher: labels of the reference words, by utterance.
    """

    given: Sequence[Hypothesis] | None = None
    raw: Sequence[Hypothesis] | None = None
    note: str = ""
    teacher: Mapping[str, Sequence[SpokenWord]] | None = None


def word_sections(
    examples: Sequence[Example],
    hypotheses: Sequence[Hypothesis],
    evidence: WordEvidence,
    *,
    train_speakers: Iterable[str] | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """``word_times`` and ``confidence``, each None where there is nothing to score."""
    return {
        "word_times": word_times_section(
            examples,
            hypotheses,
            evidence.given,
            evidence.teacher,
            train_speakers=train_speakers,
            resamples=resamples,
            seed=seed,
        ),
        "confidence": confidence_section(
            examples, hypotheses, evidence.raw, evidence.note, resamples=resamples, seed=seed
        ),
    }


def read_teacher(path: Path) -> dict[str, tuple[SpokenWord, ...]]:
    """Words by utterance of a ``timestamps_manifest.json``; `UserError` that names the sample for a wrong one."""
    if not path.is_file():
        raise UserError(f"--teacher {path}: no such file; give a timestamps_manifest.json")
    found = read_json(path)
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list):
        raise UserError(f"--teacher {path}: holds no list of samples; is it a timestamps_manifest.json?")
    return dict(_sample(path, place, sample) for place, sample in enumerate(samples))


def _sample(path: Path, place: int, sample: Any) -> tuple[str, tuple[SpokenWord, ...]]:
    try:
        return str(sample["id"]), tuple(
            SpokenWord(
                text=str(word["word"]),
                start=float(word["start"]),
                end=float(word["end"]),
                confidence=float(word.get("confidence", 1.0)),
            )
            for word in sample["words"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"--teacher {path}: sample {place}: needs id and words of word, start and end ({error!r})"
        ) from error
