"""Whisper in CTranslate2."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.models.common.language_choice import softmax
from training.models.common.moved_ids import copies_in, order_of, rows_of
from training.models.common.repeated_tokens import stopped_at
from training.models.export_parts import Description
from training.models.safeguards import Search
from training.runtime.ctranslate2_weights import Weights
from training.runtime.numpy_decoder import NumpyDecoder, NumpySteps
from training.runtime.packages import needed
from training.runtime.token_search import Rules, Written, allowed, follow, log_softmax
from training.runtime.whisper import CutShort

PRIMITIVES = "16"
"""Kernels that oneDNN, below CTranslate2, keeps compiled. It compiles one for each length of the log-mels, and would keep 1,024 of
them: half a megabyte for every length that has ever come."""


class Ctranslate2Whisper:
    """`training.runtime.whisper_abilities.Engine` for a folder of CTranslate2.

    Rows of the model stand where `MovedIds` says: CTranslate2 takes an id behind ``<|notimestamps|>`` for the end of the
    prompt. Ids outside this class are the tokenizer's.

    What CTranslate2 does not give is computed from its weights (`NumpyDecoder`): the attention to the sound, and texts that are
    drawn, because its own draws go on where the call before ended, so that the same clip would not give the same text.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
        engine = needed("ctranslate2", "export")
        try:
            self.model = engine.models.Whisper(str(folder), device="auto")
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{folder}: CTranslate2 cannot read the model ({error}); export it again"
            ) from error
        self.engine, self.folder, self.description = engine, folder, description
        assert description.prompts is not None
        self.prompts = description.prompts
        self.ids = order_of(description.moved_ids, description.vocabulary)
        self.rows = rows_of(self.ids, description.vocabulary)

    def encode(self, log_mels: np.ndarray) -> Any:
        """See `Engine.encode`; clips keep their length, nothing is padded to 30 s."""
        return self.model.encode(self._view(log_mels))

    def row(self, states: Any, row: int) -> Any:
        """See `Engine.row`."""
        return self._view(self._array(states)[row : row + 1])

    def generate(
        self, states: Any, prompts: np.ndarray, search: Search, *, scored: bool = False
    ) -> list[Written]:
        """See `Engine.generate`.

        CTranslate2 generates at most half of ``max_length``, so that twice what is wanted is asked for.

        Raises:
            CutShort: it stopped before that bound without an end token.
        """
        if search.temperature:
            return self._drawn(states, prompts, search)
        rows = self._generated(self._repeated(states, len(prompts)), prompts, search)
        if not search.stop_repeats:
            return rows
        return [self._until(states, prompts, row, search, written) for row, written in enumerate(rows)]

    def _generated(self, states: Any, prompts: np.ndarray, search: Search) -> list[Written]:
        assert search.new is not None
        asked = longest_asked(search.new, prompts.shape[-1])
        found = self.model.generate(
            states,
            self.rows[prompts].tolist(),
            beam_size=search.beams,
            max_length=asked,
            sampling_temperature=0,
            return_scores=True,
            no_repeat_ngram_size=search.no_repeat_ngram,
            suppress_tokens=[-1] if search.suppressed is None else self._suppressed(search.suppressed),
        )
        rows = [one.sequences_ids[0] for one in found]
        cut = min(asked // 2, asked - prompts.shape[-1] + 1)
        if cut < search.new and any(len(row) >= cut for row in rows):
            raise CutShort(
                f"CTranslate2 stopped at {cut} tokens where {search.new} were asked for; no short text is returned"
            )
        return [
            Written(self.ids[row].tolist(), _mean(one.scores[0], len(row), search.new))
            for row, one in zip(rows, found, strict=True)
        ]

    def _suppressed(self, ids: Sequence[int]) -> list[int]:
        """Their rows, and all copies of rows, which the folder's own list has too."""
        copies = copies_in(self.ids, self.description.vocabulary).tolist()
        return sorted({*np.flatnonzero(np.isin(self.ids, ids)).tolist(), *copies})

    def _until(self, states: Any, prompts: np.ndarray, row: int, search: Search, written: Written) -> Written:
        """The text up to where it would have been ended (`StopRepeats`); CTranslate2 writes it to the bound."""
        length = stopped_at(written.ids)
        if length is None:
            return written
        clips = self._array(states)
        clip = self._view(clips[row * len(clips) // len(prompts)][None])
        shorter = Search(new=length, no_repeat_ngram=search.no_repeat_ngram, suppressed=search.suppressed)
        return self._generated(clip, prompts[row : row + 1], shorter)[0]

    def _drawn(self, states: Any, prompts: np.ndarray, search: Search) -> list[Written]:
        clips = self._array(states)
        rules = allowed(self._rules, search)
        found: list[Written] = []
        for clip, rows in zip(clips, np.split(prompts, len(clips)), strict=True):
            found += follow(self._steps(clip), rows, rules, search)
        return found

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

    def language_logits(self, states: Any, languages: Mapping[str, int]) -> np.ndarray:
        """See `Engine.language_logits`: logarithms of what CTranslate2 tells, which it does with OpenAI's vocabularies alone."""
        if not self.model.is_multilingual:
            return self._first(states)[:, list(languages.values())]
        found = []
        for row in self.model.detect_language(states):
            shares = dict(row)
            found.append([shares.get(f"<|{code}|>", 0.0) for code in languages])
        return np.log(np.maximum(np.array(found), np.finfo(np.float32).tiny))

    def no_speech(self, states: Any) -> list[float]:
        """See `Engine.no_speech`. CTranslate2 counts copies of rows too, so that it is not asked where there are some."""
        clips = states.shape[0]
        if not self.prompts.no_speech:
            return [0.0] * clips
        if len(self.ids) > len(self.rows):
            shares: np.ndarray = softmax(self._first(states))[:, list(self.prompts.no_speech)]
            told: list[float] = shares.sum(axis=-1).tolist()
            return told
        prompt = self.rows[[self.prompts.start, self.prompts.no_timestamps]].tolist()
        found = self.model.generate(
            states,
            [prompt] * clips,
            beam_size=1,
            max_length=longest_asked(1, len(prompt)),
            return_no_speech_prob=True,
        )
        return [one.no_speech_prob for one in found]

    def read(
        self, states: Any, prompts: np.ndarray, texts: Sequence[Sequence[int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `Engine.read`."""
        found = []
        for clip, prompt, text in zip(self._array(states), prompts, texts, strict=True):
            ids = np.array(text, dtype=np.int64)
            if not len(ids):  # a row without a text is asked for nothing
                found.append((np.zeros((0, 1, len(clip)), np.float32), np.zeros(0)))
                continue
            weights, logits = self._decoder.read(
                self.rows[prompt][None], self.rows[ids][None], self._decoder.sound(clip[None])
            )
            log_probs = log_softmax(logits[:, self.rows] if len(self.ids) > len(self.rows) else logits)
            found.append((weights, log_probs[np.arange(len(ids)), ids]))
        return found

    def head(self, states: Any, head: np.ndarray) -> np.ndarray:
        """See `Engine.head`."""
        found: np.ndarray = self._array(states) @ head[:, :-1].T + head[:, -1]
        return found

    def _first(self, states: Any) -> np.ndarray:
        """Logits after the start token, float32 ``[clips, vocabulary]``."""
        start = np.array([[self.prompts.start]])
        return np.concatenate([self._steps(clip)(start) for clip in self._array(states)])

    def _steps(self, clip: np.ndarray) -> NumpySteps:
        """The decoder before its first ids, for encoder states ``[frames, width]`` of one clip."""
        return NumpySteps(self._decoder, self._decoder.sound(clip[None]), self.ids, self.rows)

    @cached_property
    def _decoder(self) -> NumpyDecoder:
        heads: dict[int, list[int]] = defaultdict(list)
        for layer, head in self.description.alignment_heads:
            heads[layer].append(head)
        return NumpyDecoder(Weights(self.folder / "model.bin"), heads)

    @property
    def _rules(self) -> Rules:
        return Rules(self.prompts.end, self.prompts.suppress, self.prompts.suppress_first)

    def _view(self, values: np.ndarray) -> Any:
        return self.engine.StorageView.from_array(np.ascontiguousarray(values, dtype=np.float32))

    def _array(self, states: Any) -> np.ndarray:
        """Encoder states as an array float32 ``[clips, frames, width]``."""
        if states.device != "cpu":
            states = states.to_device(self.engine.Device.cpu)
        return np.asarray(states.to(self.engine.DataType.float32))

    def _repeated(self, states: Any, rows: int) -> Any:
        """The states of each clip as often as it has rows."""
        clips = states.shape[0]
        return states if clips == rows else self._view(np.repeat(self._array(states), rows // clips, axis=0))


def _mean(score: float, length: int, new: int) -> float:
    """The mean log-probability of a text's tokens and its end token, of CTranslate2's sum by the tokens without the end."""
    return score * max(1, length) / (length + 1) if length < new else score


def longest_asked(new: int, prompt: int) -> int:
    """``max_length`` of CTranslate2 for ``new`` ids after ``prompt`` ids.

    It generates at most half of it (https://github.com/OpenNMT/CTranslate2/issues/2074), and at most what the prompt leaves.
    """
    return max(2 * new, new + prompt - 1)
