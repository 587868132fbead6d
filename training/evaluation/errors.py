"""Kinds of errors: shares, confusions, loops, empty hypotheses, words in clips without speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.decoding.repetition import LOOP_RULE, has_loop
from training.evaluation.normalize import normalizer
from training.evaluation.rows import Row
from training.evaluation.word_alignment import Alignments, align_words

LOOPS = f"{LOOP_RULE}; not counted where the reference has such a run itself"


def error_shares(alignments: Alignments) -> dict[str, Any]:
    """Counts of hits, substitutions, deletions and insertions, and each kind's share of the errors (percent)."""
    hits, substitutions, deletions, insertions = (int(count) for count in alignments.counts.sum(axis=0))
    errors = substitutions + deletions + insertions
    kinds = {"substitutions": substitutions, "deletions": deletions, "insertions": insertions}
    return {
        "hits": hits,
        "reference_words": hits + substitutions + deletions,
        "errors": errors,
        **{kind: {"count": n, "share": 100.0 * n / errors if errors else None} for kind, n in kinds.items()},
    }


def confusions(alignments: Alignments, top: int = 20) -> dict[str, list[dict[str, Any]]]:
    """The most frequent substitutions, deletions and insertions with their counts (ties in text order)."""
    counters: dict[str, Counter[tuple[str, str]]] = {
        "substitute": Counter(),
        "delete": Counter(),
        "insert": Counter(),
    }
    for kind, reference, hypothesis in word_pairs(alignments):
        if kind != "equal":
            counters[kind][reference, hypothesis] += 1
    return {
        "substitutions": [
            {"reference": pair[0], "hypothesis": pair[1], "count": n}
            for pair, n in _most(counters["substitute"], top)
        ],
        "deletions": [{"word": pair[0], "count": n} for pair, n in _most(counters["delete"], top)],
        "insertions": [{"word": pair[1], "count": n} for pair, n in _most(counters["insert"], top)],
    }


def _most(counter: Counter[tuple[str, str]], top: int) -> list[tuple[tuple[str, str], int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:top]


def word_pairs(alignments: Alignments) -> Iterator[tuple[str, str, str]]:
    """(kind, reference word, hypothesis word) for every aligned position; the missing side is empty."""
    rows = zip(alignments.references, alignments.hypotheses, alignments.chunks, strict=True)
    for reference, hypothesis, chunks in rows:
        for chunk in chunks:
            recognised = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            written = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            width = max(len(recognised), len(written))
            for left, right in zip(_fill(written, width), _fill(recognised, width), strict=True):
                yield chunk.type, left, right


def _fill(words: Sequence[str], width: int) -> list[str]:
    return [*words, *[""] * (width - len(words))]


def loops(row: Row) -> bool:
    return has_loop(row.hypothesis_words) and not has_loop(row.reference_words)


def degenerate(rows: Sequence[Row]) -> dict[str, Any]:
    """Number and percentage of hypotheses that loop, or are empty where the reference is not, with the first ids."""
    looping = [row.example.id for row in rows if loops(row)]
    empty = [row.example.id for row in rows if row.reference and not row.hypothesis]
    return {
        "rule": LOOPS,
        "rows": len(rows),
        "looping": _listed(looping, len(rows)),
        "empty": _listed(empty, len(rows)),
    }


def _listed(ids: Sequence[str], total: int) -> dict[str, Any]:
    return {
        "count": len(ids),
        "share": 100.0 * len(ids) / total if total else None,
        "first_ids": list(ids[:10]),
    }


def inserted_without_speech(
    hypotheses: Mapping[str, Sequence[str]], language: str | None = None
) -> dict[str, dict[str, Any]]:
    """Words that a model wrote for clips without speech.

    Args:
        hypotheses: texts of the clips by kind (silence, noise, music).
        language: of the normalisation.

    Returns:
        Counts and the most frequent texts, by kind.
    """
    return {kind: _invented(texts, language) for kind, texts in sorted(hypotheses.items())}


def _invented(texts: Sequence[str], language: str | None) -> dict[str, Any]:
    normal = [normalizer(language)(text) for text in texts]
    invented = align_words([""] * len(normal), normal).counts[:, 3]
    spoken = Counter(text for text in normal if text)
    return {
        "clips": len(normal),
        "clips_with_words": int((invented > 0).sum()),
        "words": int(invented.sum()),
        "words_per_clip": float(invented.mean()) if len(normal) else None,
        "looping_clips": sum(has_loop(text.split()) for text in normal),
        "most_frequent": [
            {"text": text, "count": n} for text, n in sorted(spoken.items(), key=lambda i: (-i[1], i[0]))[:5]
        ],
    }
