"""What a CTC model can be asked to write, and how many frames that takes; without torch, for checks of data."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise


def audible(text: str) -> str:
    """Letters, digits and marks in lower case, words parted by one space, NFC."""
    text = unicodedata.normalize("NFC", text).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(kept.split())


def frames_needed(targets: Sequence[int] | str) -> int:
    """Frames that the shortest alignment takes: one for each token, and a blank between equal neighbours."""
    return len(targets) + sum(a == b for a, b in pairwise(targets))
