"""Scores that code-switching needs: errors by word language, at switch points, and English words replaced.

In code-switched translation most rows equal their transcript, so a system that only copies scores high. The
translation is therefore judged on the rows that change, against copies, and word by word: is the English
gone, and is its Vietnamese there?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.data.example import Example
from training.data.metric import WER
from training.evaluation.intervals import interval, units_of
from training.evaluation.language import OTHER, tag_words
from training.evaluation.normalize import primary_language
from training.evaluation.rows import Row
from training.evaluation.statistic import Statistic, percent
from training.evaluation.word_alignment import Alignments, align_words

INSERTION_RULE = (
    "an inserted word counts for the language of the reference word before it (the first if none)"
)
SWITCH_RULE = (
    "words of the reference on either side of a change of language; substitutions and deletions per 100 such words, "
    "beside the other words of the same rows"
)
REPLACED_RULE = (
    "counted are the foreign words of the reference transcript that the reference translation replaces (transcript "
    "and translation aligned by word; each run of differing words is one span). gone: the word occurs in the "
    "hypothesis no more often than in the reference translation. replaced: gone, and all words that the reference "
    "translation puts into its span are aligned to equal words of the hypothesis. replaced_partly: gone, and at "
    "least half of them are. inserted_words_recalled: share of the spans' translated words found in place"
)
VIETNAMESE_WORDS = "a Vietnamese word is a syllable here (that is how Vietnamese is spaced)"


@dataclass(frozen=True)
class Span:
    """What the reference translation replaces: foreign words of the transcript, positions in the translation."""

    foreign: tuple[str, ...]
    start: int
    end: int


def word_tags(row: Row) -> tuple[str, ...] | None:
    """A language per normalised word of a transcription row; None where nothing is known.

    From the manifest's ``word_languages`` (each raw word's tag goes to the pieces that normalisation makes of
    it), else from the tagger where the speech is Vietnamese.
    """
    words = row.raw_reference.split()
    tags: Sequence[str] = row.example.word_languages
    if not tags and row.language == "vi":
        tags = tag_words(words)
    if not tags:
        return None
    if len(tags) != len(words):
        raise UserError(
            f"{row.example.source or row.example.id}: word_languages has {len(tags)} codes for the {len(words)} "
            "words of the transcript; give one per word or leave the column empty"
        )
    pieces = (
        (primary_language(tag), row.normalizer.words(word)) for tag, word in zip(tags, words, strict=True)
    )
    return tuple(tag for tag, parts in pieces for _ in parts)


def tag_source(examples: Sequence[Example]) -> str:
    given = sum(bool(example.word_languages) for example in examples)
    return (
        "manifest" if given == len(examples) else "tagger" if not given else "manifest, tagger where absent"
    )


def matrix_language(rows: Sequence[Tagged]) -> str:
    """The stated language of the speech where words of it occur, else the language of most words."""
    words = Counter(tag for row in rows for tag in row.tags)
    stated = Counter(primary_language(row.example.language) for row in rows)
    known = {tag: count for tag, count in stated.items() if tag in words}
    counts = known or words
    return min(counts, key=lambda tag: (-counts[tag], tag))


def by_word_language(
    rows: Sequence[Row], alignments: Alignments, *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """WER per word language, recall of embedded words and the error at switch points; None without tags."""
    known = [
        Tagged(row.example, tags, *_marks(alignments, index))
        for index, row in enumerate(rows)
        if (tags := word_tags(row)) is not None
    ]
    languages = sorted({tag for row in known for tag in row.tags})
    if not languages:
        return None
    units = units_of([row.example for row in known])

    def rate(counts: list[list[int]]) -> dict[str, Any]:
        statistic = Statistic(np.array(counts, dtype=np.int64), percent)
        part, whole = statistic.matrix.sum(axis=0).tolist()
        found = interval(statistic, units, resamples=resamples, seed=seed).to_json()
        return {**found, "count": part, "of": whole}

    matrix = matrix_language(known)
    return {
        "matrix_language": matrix,
        "tags": tag_source([row.example for row in known]),
        "note": f"{VIETNAMESE_WORDS}; {INSERTION_RULE}",
        WER.name: {
            language: {
                **rate([row.errors(language) for row in known]),
                "insertions": sum(row.insertions(language) for row in known),
            }
            for language in languages
        },
        "embedded_word_recall": rate([row.recalled(matrix) for row in known]),
        "switch_points": {
            "rule": SWITCH_RULE,
            "at": rate([row.switch_errors(at=True) for row in known]),
            "elsewhere": rate([row.switch_errors(at=False) for row in known]),
            "mixed_rows": sum(row.mixed for row in known),
        },
    }


@dataclass(frozen=True)
class Tagged:
    """One aligned transcription row: per reference word its language and whether it was hit; ``inserted``
    counts the inserted words before each reference word (the last place: after all of them)."""

    example: Example
    tags: tuple[str, ...]
    hit: tuple[bool, ...]
    inserted: tuple[int, ...]

    @property
    def mixed(self) -> bool:
        return len(set(self.tags)) > 1

    def insertions(self, language: str) -> int:
        places = enumerate(self.inserted if self.tags else ())
        return sum(count for place, count in places if self.tags[max(place - 1, 0)] == language)

    def errors(self, language: str) -> list[int]:
        """Errors and reference words of one language."""
        hits = [hit for tag, hit in zip(self.tags, self.hit, strict=True) if tag == language]
        return [len(hits) - sum(hits) + self.insertions(language), len(hits)]

    def recalled(self, matrix: str) -> list[int]:
        """Hits and words of other named languages (numbers and fillers are none), in rows that also have words of the matrix language."""
        pairs = zip(self.tags, self.hit, strict=True)
        embedded = [hit for tag, hit in pairs if tag not in (matrix, OTHER) and matrix in self.tags]
        return [sum(embedded), len(embedded)]

    def switch_errors(self, *, at: bool) -> list[int]:
        """Missed and all words beside a switch (or away from it), in rows of more than one language."""
        if not self.mixed:
            return [0, 0]
        before = (None, *self.tags[:-1])
        after = (*self.tags[1:], None)
        beside = [
            any(other not in (None, tag) for other in (left, right))
            for left, tag, right in zip(before, self.tags, after, strict=True)
        ]
        chosen = [hit for near, hit in zip(beside, self.hit, strict=True) if near == at]
        return [len(chosen) - sum(chosen), len(chosen)]


def _marks(alignments: Alignments, index: int) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    """Which reference words of a row were hit, and how many words were inserted before each and at the end."""
    length = len(alignments.references[index])
    hit, inserted = [False] * length, [0] * (length + 1)
    for chunk in alignments.chunks[index]:
        if chunk.type == "equal":
            hit[chunk.ref_start_idx : chunk.ref_end_idx] = [True] * (chunk.ref_end_idx - chunk.ref_start_idx)
        elif chunk.type == "insert":
            inserted[chunk.ref_start_idx] += chunk.hyp_end_idx - chunk.hyp_start_idx
    return tuple(hit), tuple(inserted)


def spans(transcript: Row, translation: Row) -> list[Span]:
    """The spans in which the reference translation replaces words that are not in its language."""
    tags = word_tags(transcript)
    if tags is None:
        return []
    words = transcript.reference_words
    chunks = align_words([transcript.reference], [translation.reference]).chunks[0]
    found: list[list[int]] = []
    for chunk in chunks:
        if chunk.type == "equal":
            continue
        place = [chunk.ref_start_idx, chunk.ref_end_idx, chunk.hyp_start_idx, chunk.hyp_end_idx]
        if found and found[-1][1] == place[0] and found[-1][3] == place[2]:
            found[-1][1], found[-1][3] = place[1], place[3]
        else:
            found.append(place)
    return [
        Span(foreign, start, end)
        for first, last, start, end in found
        if (
            foreign := tuple(
                words[i] for i in range(first, last) if tags[i] not in (translation.language, OTHER)
            )
        )
    ]


def words_replaced(pairs: Sequence[tuple[Row, Row]], *, resamples: int, seed: int) -> dict[str, Any] | None:
    """Share of foreign words that the hypotheses replace (`REPLACED_RULE`), from (transcript, translation) rows."""
    counts = [_replaced(translation, spans(transcript, translation)) for transcript, translation in pairs]
    if not any(row["words"] for row in counts):
        return None
    units = units_of([translation.example for _, translation in pairs])

    def share(part: str, whole: str) -> dict[str, Any]:
        matrix = np.array([[row[part], row[whole]] for row in counts], dtype=np.int64)
        found = interval(Statistic(matrix, percent), units, resamples=resamples, seed=seed).to_json()
        return {**found, "count": int(matrix[:, 0].sum()), "of": int(matrix[:, 1].sum())}

    return {
        "rule": REPLACED_RULE,
        "replaced": share("replaced", "words"),
        "replaced_partly": share("partly", "words"),
        "gone": share("gone", "words"),
        "inserted_words_recalled": share("found", "inserted"),
    }


def _replaced(translation: Row, found: Sequence[Span]) -> Counter[str]:
    hit = _marks(align_words([translation.reference], [translation.hypothesis]), 0)[0]
    reference_words, hypothesis_words = (
        Counter(translation.reference_words),
        Counter(translation.hypothesis_words),
    )
    counts: Counter[str] = Counter()
    for span in found:
        inside = hit[span.start : span.end]
        gone = sum(hypothesis_words[word] <= reference_words[word] for word in span.foreign)
        counts["words"] += len(span.foreign)
        counts["gone"] += gone
        counts["replaced"] += gone if all(inside) else 0
        counts["partly"] += gone if 2 * sum(inside) >= len(inside) else 0
        counts["found"] += sum(inside)
        counts["inserted"] += len(inside)
    return counts
