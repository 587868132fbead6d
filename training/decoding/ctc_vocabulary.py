"""The vocabulary of a CTC output: letters of its ids, and the borders of words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

WORD_START = "▁"
DELIMITERS = (" ", "|")


@dataclass(frozen=True)
class CtcVocabulary:
    """Texts of the ids of a CTC output (see `training.models.abilities.CtcFrames`) and the blank's id.

    Pieces such as ``▁xin`` begin a word where the vocabulary has any; else ``" "`` or, failing that, ``"|"``
    parts words. An id of an empty text spells nothing.
    """

    tokens: tuple[str, ...]
    blank: int = 0

    @cached_property
    def delimiter(self) -> str | None:
        """The token that parts words; None where pieces begin them, or where all is one word.

        A ``▁`` that no other piece begins with stands between words of characters, as a space does.
        """
        if starts := [token for token in self.tokens if token.startswith(WORD_START)]:
            return WORD_START if starts == [WORD_START] else None
        return next((mark for mark in DELIMITERS if mark in self.tokens), None)

    @cached_property
    def delimiter_id(self) -> int | None:
        """The id of the delimiter; None where there is none."""
        return None if self.delimiter is None else self.tokens.index(self.delimiter)

    @cached_property
    def begins_word(self) -> tuple[bool, ...]:
        """For each id, whether it ends the word before it."""
        return tuple(token == self.delimiter or token.startswith(WORD_START) for token in self.tokens)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """For each id: what it adds to the word that it belongs to."""
        return tuple(
            "" if i == self.blank or token == self.delimiter else token.removeprefix(WORD_START)
            for i, token in enumerate(self.tokens)
        )

    @cached_property
    def _pieces(self) -> tuple[frozenset[str], frozenset[str]]:
        """Letters of tokens that may begin a word (an empty string where no tokens are marked so), and of those that may follow."""
        inner = frozenset(
            letters
            for letters, first in zip(self.letters, self.begins_word, strict=True)
            if letters and not first
        )
        if not any(token.startswith(WORD_START) for token in self.tokens):
            return frozenset({""}), inner
        starts = (letters for letters, first in zip(self.letters, self.begins_word, strict=True) if first)
        return frozenset(starts), inner

    def spells(self, word: str) -> bool:
        """Whether some sequence of ids spells this word between two others. False for the empty word."""
        starts, inner = self._pieces
        if "" in starts and word and inner.issuperset(word):
            return True
        reached = {len(piece) for piece in starts if word.startswith(piece)}
        longest = max(map(len, inner), default=0)
        for at in range(len(word)):
            if at in reached:
                ends = range(at + 1, min(at + longest, len(word)) + 1)
                reached.update(end for end in ends if word[at:end] in inner)
        return bool(word) and len(word) in reached

    def words(self, ids: Iterable[int]) -> list[tuple[str, list[int]]]:
        """Words of a label sequence, each with the positions of the ids that spell it."""
        found: list[tuple[str, list[int]]] = []
        fresh = True
        for position, i in enumerate(ids):
            fresh = fresh or self.begins_word[i]
            if not self.letters[i]:
                continue
            if fresh:
                found.append(("", []))
                fresh = False
            found[-1] = (found[-1][0] + self.letters[i], [*found[-1][1], position])
        return found

    def text(self, ids: Iterable[int]) -> str:
        """The words with single spaces."""
        return " ".join(word for word, _ in self.words(ids))


def collapse(path: Sequence[int], blank: int) -> list[int]:
    """Labels of a path of one id per frame: repetitions merged, blanks left out (Graves et al., 2006)."""
    return [i for n, i in enumerate(path) if i != blank and (n == 0 or i != path[n - 1])]
