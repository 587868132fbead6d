"""Which word of a text each of its tokens belongs to. Does not import torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.models.common.plain_text import text_encoding


def word_of_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids of ``text``, single spaces between its words, and for each the word that it ends in (bytes of one letter apart: all in its word)."""
    found = text_encoding(tokenizer, text)
    starts = [i for i, c in enumerate(text) if not c.isspace() and (i == 0 or text[i - 1].isspace())]
    words = []
    for begin, end in found.offsets:
        # A space that is a token of its own leads to the word behind it.
        last = begin + max(len(text[begin:end].rstrip()), 1) - 1
        following = last + 1 if text[last : last + 1].isspace() else last
        words.append(int(np.searchsorted(starts, following, side="right")) - 1)
    return found.ids, words
