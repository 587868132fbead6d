"""From token ids to text, for every architecture with a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.data.control_marks import TIME


@dataclass(frozen=True)
class Decode:
    """Token ids of one row to text, control tokens left out: special ones, and timestamps that are not called so.

    Text that is only written like one (``<|0.00|>``) stays.
    """

    tokenizer: Any

    def __call__(self, ids: Sequence[int]) -> str:
        kept = [i for i in ids if i not in self._times]
        # Not the tokenizer's own decode: Whisper's takes out what is written like a timestamp as well.
        return str(PreTrainedTokenizerBase.decode(self.tokenizer, kept, skip_special_tokens=True)).strip()

    @cached_property
    def _times(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(i for i, token in added if TIME.fullmatch(token.content))
