"""Whisper in CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.models.common.moved_ids import order_of, rows_of
from training.models.export_parts import Description
from training.runtime.packages import needed
from training.runtime.whisper import CutShort


class Ctranslate2Whisper:
    """`training.runtime.whisper.Engine` for a folder of CTranslate2.

    Rows of the model stand where `MovedIds` says: CTranslate2 takes an id behind ``<|notimestamps|>`` for the end of the
    prompt. Ids outside this class are the tokenizer's.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        engine = needed("ctranslate2", "export")
        try:
            self.model = engine.models.Whisper(str(folder), device="auto")
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{folder}: CTranslate2 cannot read the model ({error}); export it again"
            ) from error
        self.view = engine.StorageView.from_array
        self.ids = order_of(description.moved_ids, description.vocabulary)
        self.rows = rows_of(self.ids, description.vocabulary)

    def encode(self, log_mels: np.ndarray) -> Any:
        """See `Engine.encode`; clips keep their length, nothing is padded to 30 s."""
        return self.model.encode(self.view(np.ascontiguousarray(log_mels, dtype=np.float32)))

    def generate(self, states: Any, prompts: np.ndarray, new: int, beams: int) -> list[list[int]]:
        """See `Engine.generate`.

        CTranslate2 generates at most half of ``max_length``, so that twice what is wanted is asked for.

        Raises:
            CutShort: it stopped before that bound without an end token.
        """
        asked = longest_asked(new, prompts.shape[-1])
        found = self.model.generate(
            states, self.rows[prompts].tolist(), beam_size=beams, max_length=asked, sampling_temperature=0
        )
        rows = [one.sequences_ids[0] for one in found]
        cut = min(asked // 2, asked - prompts.shape[-1] + 1)
        if cut < new and any(len(row) >= cut for row in rows):
            raise CutShort(
                f"CTranslate2 stopped at {cut} tokens where {new} were asked for; no short text is returned"
            )
        return [self.ids[row].tolist() for row in rows]

    def likeliest(self, states: Any, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """See `Engine.likeliest`; ``among`` are the ids of `MovedIds`.

        After a prompt without ``<|notimestamps|>`` CTranslate2 allows only what stands behind its row, up to
        ``max_initial_timestamp_index``: the copies of those rows.
        """
        found = self.model.generate(
            states,
            self.rows[prompts].tolist(),
            beam_size=1,
            max_length=longest_asked(1, prompts.shape[-1]),
            max_initial_timestamp_index=len(among) - 1,
            suppress_blank=False,
            suppress_tokens=[],
        )
        return [int(self.ids[one.sequences_ids[0][0]]) for one in found]


def longest_asked(new: int, prompt: int) -> int:
    """``max_length`` of CTranslate2 for ``new`` ids after ``prompt`` ids.

    It generates at most half of it (https://github.com/OpenNMT/CTranslate2/issues/2074), and at most what the prompt leaves.
    """
    return max(2 * new, new + prompt)
