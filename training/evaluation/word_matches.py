"""Pairs of equal words of a reference and a hypothesis, by the alignment of the WER, with their places in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluation.normalize import normalizer
from training.evaluation.word_alignment import align_words


@dataclass(frozen=True)
class Matches:
    """The matched words of one utterance.

    pairs: (place in the reference, place in the hypothesis) of the words that are equal, in order.
    references, hypotheses: places of the words that count: words of which something is left after normalisation.
    """

    pairs: tuple[tuple[int, int], ...]
    references: tuple[int, ...]
    hypotheses: tuple[int, ...]


def match_words(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], languages: Sequence[str | None]
) -> list[Matches]:
    """Align the words of references and hypotheses as the WER aligns their normalised texts.

    A word that the normalisation splits (French ``l'eau``) is matched where all its pieces are those of one word of the
    other side.

    Args:
        references: words of each utterance, as written.
        hypotheses: the same of the recognised text.
        languages: of each utterance, for the normalisation.

    Returns:
        The matches of each utterance.
    """
    if not references:
        return []
    left = [_pieces(words, language) for words, language in zip(references, languages, strict=True)]
    right = [_pieces(words, language) for words, language in zip(hypotheses, languages, strict=True)]
    chunks = align_words([_text(pieces) for pieces in left], [_text(pieces) for pieces in right]).chunks
    return [_matches(*found) for found in zip(left, right, chunks, strict=True)]


def _pieces(words: Sequence[str], language: str | None) -> list[tuple[int, str]]:
    """(place of its word, piece) of all pieces that are left after normalisation."""
    normal = normalizer(language)
    return [(place, piece) for place, word in enumerate(words) for piece in normal.words(word)]


def _text(pieces: Sequence[tuple[int, str]]) -> str:
    return " ".join(piece for _, piece in pieces)


def _matches(
    left: Sequence[tuple[int, str]], right: Sequence[tuple[int, str]], chunks: Sequence[Any]
) -> Matches:
    ours, theirs = (Counter(place for place, _ in pieces) for pieces in (left, right))
    equal = Counter(
        (left[chunk.ref_start_idx + n][0], right[chunk.hyp_start_idx + n][0])
        for chunk in chunks
        if chunk.type == "equal"
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    )
    pairs = tuple(pair for pair, n in equal.items() if n == ours[pair[0]] == theirs[pair[1]])
    return Matches(pairs, tuple(ours), tuple(theirs))
