"""Errors of a transcription by length of the clip, by domain and by frequency of the word in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from training.data.metric import WER
from training.evaluation.intervals import Units, interval, units_of, unpaired
from training.evaluation.metrics import domain_rows, transcript_statistics
from training.evaluation.rows import Row
from training.evaluation.statistic import Statistic, percent
from training.evaluation.word_alignment import Alignments

ACCURACY_RULE = (
    "words: 100 - WER (below zero where more words are wrong than were said); words_found: share of reference words "
    "that are in place; utterances: share without any error"
)
VOCABULARY_RULE = (
    "reference words by how often the training transcripts have them (normalised alike); error rate of substitutions "
    "and deletions, as an insertion belongs to no reference word; rows_with_unseen: WER of utterances with at least "
    "one unseen word, beside the others"
)
GAP_RULE = (
    "score of the domain minus score of the base, the domain with the most rows; 95 % bootstrap, the two drawn apart, "
    "since their utterances are different ones"
)
DURATIONS = (2.0, 5.0, 10.0, 20.0)
"""Seconds where one group of clips ends and the next begins."""
FREQUENCIES = (("unseen", 0, 0), ("once", 1, 1), ("2-9", 2, 9), ("10 or more", 10, 10**12))
WORST = 20

Draw = Callable[[Sequence[Row], Statistic], dict[str, Any]]


def drawing(resamples: int, seed: int) -> Draw:
    """``(rows, statistic) -> score with interval`` as every other figure of the evaluation has it."""

    def draw(rows: Sequence[Row], statistic: Statistic) -> dict[str, Any]:
        return interval(statistic, _units(rows), resamples=resamples, seed=seed).to_json()

    return draw


def accuracy(rows: Sequence[Row], alignments: Alignments, draw: Draw) -> dict[str, Any]:
    """`ACCURACY_RULE`, each with its interval."""
    hits, substitutions, deletions, insertions = alignments.counts.T
    words = hits + substitutions + deletions
    errors = substitutions + deletions + insertions
    ones = np.ones_like(words)
    shares = {
        "words": np.stack([words - errors, words], axis=1),
        "words_found": np.stack([hits, words], axis=1),
        "utterances": np.stack([(errors == 0).astype(np.int64), ones], axis=1),
    }
    found = {name: draw(rows, Statistic(matrix, percent)) for name, matrix in shares.items()}
    return {"rule": ACCURACY_RULE, **found}


def by_duration(rows: Sequence[Row], draw: Draw) -> dict[str, Any]:
    """WER and CER of clips of similar length; groups without clips are left out."""
    bounds = [0.0, *DURATIONS, float("inf")]
    groups: dict[str, list[Row]] = {}
    for low, high in pairwise(bounds):
        name = f"{low:g}-{high:g} s" if high < float("inf") else f"{low:g} s and more"
        groups[name] = [row for row in rows if low <= row.example.duration < high]
    return _scores(groups, draw)


def by_domain(rows: Sequence[Row], draw: Draw) -> dict[str, Any]:
    """WER and CER by what the manifest's ``domain`` says (a topic, an age group); empty where it says nothing."""
    return _scores(_domains(rows), draw)


def domain_gap(rows: Sequence[Row], *, resamples: int, seed: int) -> dict[str, Any] | None:
    """`GAP_RULE`; None where there are not two domains."""
    domains = _domains(rows)
    if len(domains) < 2:
        return None
    base = max(domains, key=lambda name: len(domains[name]))  # the first by name among equals
    of_base, drawn = transcript_statistics(domains[base]), _units(domains[base])
    gaps: dict[str, dict[str, Any]] = {}
    for name, found in domains.items():
        if name == base:
            continue
        statistics = transcript_statistics(found)
        gaps[name] = {
            key: unpaired(
                statistics[key], of_base[key], _units(found), drawn, resamples=resamples, seed=seed
            ).to_json()
            for key in statistics
            if key in of_base
        }
    return {"rule": GAP_RULE, "base": base, "gaps": gaps}


def _domains(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [rows[index] for index in indices] for name, indices in domain_rows(rows).items()}


def _units(rows: Sequence[Row]) -> Units:
    return units_of([row.example for row in rows])


def _scores(groups: Mapping[str, Sequence[Row]], draw: Draw) -> dict[str, Any]:
    return {
        name: {
            "rows": len(found),
            "seconds": sum(row.example.duration for row in found),
            **{key: draw(found, value) for key, value in transcript_statistics(found).items()},
        }
        for name, found in groups.items()
        if found
    }


def by_vocabulary(
    rows: Sequence[Row], alignments: Alignments, train_texts: Iterable[str], draw: Draw
) -> dict[str, Any] | None:
    """`VOCABULARY_RULE`; None where there are no training texts to compare with."""
    normal = rows[0].normalizer
    seen = Counter(word for text in train_texts for word in normal(text).split())
    if not seen:
        return None
    marks = [_missed(alignments, index) for index in range(len(rows))]
    bands: dict[str, Any] = {}
    for name, low, high in FREQUENCIES:
        counts = [_band(found, seen, low, high) for found in marks]
        missed, words = np.array(counts, dtype=np.int64).sum(axis=0).tolist()
        if words:
            matrix = np.array(counts, dtype=np.int64)
            bands[name] = {**draw(rows, Statistic(matrix, percent)), "count": missed, "of": words}
    unseen = [any(word not in seen for word in row.reference_words) for row in rows]
    groups = {
        "rows_with_unseen": [row for row, found in zip(rows, unseen, strict=True) if found],
        "rows_without_unseen": [row for row, found in zip(rows, unseen, strict=True) if not found],
    }
    return {
        "rule": VOCABULARY_RULE,
        "training_words": len(seen),
        "word_errors": bands,
        **_scores(groups, draw),
    }


def _missed(alignments: Alignments, index: int) -> list[tuple[str, bool]]:
    """Each reference word of a row, and whether it was substituted or left out."""
    words = alignments.references[index]
    return [
        (words[place], chunk.type != "equal")
        for chunk in alignments.chunks[index]
        if chunk.type != "insert"
        for place in range(chunk.ref_start_idx, chunk.ref_end_idx)
    ]


def _band(found: Sequence[tuple[str, bool]], seen: Mapping[str, int], low: int, high: int) -> tuple[int, int]:
    marks = [missed for word, missed in found if low <= seen.get(word, 0) <= high]
    return sum(marks), len(marks)


def worst(rows: Sequence[Row], alignments: Alignments, top: int = WORST) -> list[dict[str, Any]]:
    """The utterances with the most errors per word, those of more errors first among equals; none without errors."""
    errors = alignments.counts[:, 1:].sum(axis=1).tolist()
    words = alignments.counts[:, :3].sum(axis=1).tolist()
    order = sorted(
        (i for i in range(len(rows)) if errors[i]),
        key=lambda i: (-errors[i] / max(words[i], 1), -errors[i], rows[i].example.id),
    )
    return [
        {
            "id": rows[i].example.id,
            "errors": errors[i],
            "words": words[i],
            WER.name: 100.0 * errors[i] / words[i] if words[i] else None,
            "seconds": rows[i].example.duration,
            "speaker": rows[i].example.speaker,
            "reference": rows[i].reference,
            "hypothesis": rows[i].hypothesis,
        }
        for i in order[:top]
    ]
