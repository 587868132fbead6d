"""The vocabulary of a CTC head. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable

from training.data.spelling import audible


class CtcCharacters:
    """The vocabulary of a CTC head: characters of the training transcripts, blank at 0.

    Characters, not the decoder's pieces: each occurs in many words, so that the encoder learns to distinguish them
    within minutes, and a head over some hundred of them costs almost nothing. Case and punctuation
    have no sound and are left out; letters keep their diacritics.
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters, start=1)}

    @classmethod
    def of(cls, transcripts: Iterable[str]) -> CtcCharacters:
        """Those that the transcripts consist of, in code-point order."""
        seen: set[str] = set()
        for text in transcripts:
            seen.update(cls.audible(text))
        return cls("".join(sorted(seen)))

    audible = staticmethod(audible)

    def encode(self, text: str) -> list[int]:
        """Ids of the text; a character that no training transcript has is left out, as it cannot be learnt."""
        return [self._ids[c] for c in self.audible(text) if c in self._ids]

    def unknown(self, text: str) -> list[str]:
        """Characters of the text that are not in the vocabulary, sorted."""
        return sorted(set(self.audible(text)) - {" "} - set(self.characters))

    def __len__(self) -> int:
        return len(self.characters) + 1
