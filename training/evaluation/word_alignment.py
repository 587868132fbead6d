"""Alignment of references and hypotheses by jiwer, in words or characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

from training.evaluation.statistic import Statistic, percent


@dataclass(frozen=True)
class Alignments:
    """jiwer's alignment of every row. ``counts`` is int64 ``[rows, 4]``: hits, substitutions, deletions,
    insertions. ``chunks`` holds jiwer's `AlignmentChunk`s per row."""

    counts: np.ndarray
    references: list[list[str]]
    hypotheses: list[list[str]]
    chunks: list[list[jiwer.AlignmentChunk]]

    def error_rate(self) -> Statistic:
        """Errors per reference unit, in percent."""
        hits, substitutions, deletions, insertions = self.counts.T
        errors = substitutions + deletions + insertions
        return Statistic(np.stack([errors, hits + substitutions + deletions], axis=1), percent)


def align_words(references: Sequence[str], hypotheses: Sequence[str]) -> Alignments:
    return _alignments(jiwer.process_words(list(references), list(hypotheses)))


def align_characters(references: Sequence[str], hypotheses: Sequence[str]) -> Alignments:
    return _alignments(jiwer.process_characters(list(references), list(hypotheses)))


def _alignments(output: Any) -> Alignments:
    counts = np.array([_count(chunks) for chunks in output.alignments], dtype=np.int64).reshape(-1, 4)
    return Alignments(counts, output.references, output.hypotheses, output.alignments)


def _count(chunks: Sequence[jiwer.AlignmentChunk]) -> list[int]:
    totals = dict.fromkeys(("equal", "substitute", "delete", "insert"), 0)
    for chunk in chunks:
        inserted = chunk.hyp_end_idx - chunk.hyp_start_idx
        totals[chunk.type] += inserted if chunk.type == "insert" else chunk.ref_end_idx - chunk.ref_start_idx
    return list(totals.values())
