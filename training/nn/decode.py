"""From token ids to text, for every architecture with a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decode:
    """Token ids of one row to text, special tokens left out."""

    tokenizer: Any

    def __call__(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
