"""The characters that a CTC model writes, and the number of frames they need. Without torch, for checks of data."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise


class _AudibleTable(dict[int, str]):
    """A table of `str.translate`: letters, digits and marks stay, all other code points become spaces.

    It caches each code point, because building a vocabulary reads the characters of a million rows.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = found = character if unicodedata.category(character)[0] in "LMN" else " "
        return found


_AUDIBLE = _AudibleTable()


def audible(text: str) -> str:
    """Letters, digits and marks in lower case, words separated by one space, NFC."""
    return " ".join(unicodedata.normalize("NFC", text).lower().translate(_AUDIBLE).split())


def frames_needed(targets: Sequence[int] | str) -> int:
    """Frames that the shortest alignment takes: one for each token, and a blank between equal neighbours."""
    return len(targets) + sum(a == b for a, b in pairwise(targets))
