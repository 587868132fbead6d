"""What an exported Whisper can do beside writing, see `training.models.whisper.abilities`; numpy alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.base.errors import UserError
from training.data.example import TRANSCRIBE
from training.models.abilities import CtcFrames, DomainPrediction, LanguagePrediction, ReadText
from training.models.architecture import new_tokens
from training.models.batch import Batch
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.language_choice import BEGINNING, Beginning, language_shares
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND
from training.models.common.plain_text import text_ids
from training.models.export_parts import Description, Prompts
from training.models.safeguards import Scored, Search
from training.runtime.log_mels import array_of
from training.runtime.prompts import OPEN, OPEN_LANGUAGE
from training.runtime.text import Detokenizer
from training.runtime.token_search import Written, log_softmax

HEAD = "ctc_head.npy"


class Engine(Protocol):
    """Runs the network of an exported Whisper. Encoder states are in the engine's own form."""

    def encode(self, log_mels: np.ndarray) -> Any:
        """Encoder states of log-mels float32 ``[clips, mels, frames]``."""

    def row(self, states: Any, row: int) -> Any:
        """The states of one clip."""

    def generate(
        self, states: Any, prompts: np.ndarray, search: Search, *, scored: bool = False
    ) -> list[Written]:
        """The text that follows each prompt.

        Args:
            states: of `encode`.
            prompts: int64 ``[rows, length]``; each clip has as many rows as another, and they stand together.
            search: with the most ids of a text, ``new``.
            scored: also tell the log-probabilities.

        Raises:
            CutShort: it stopped before ``new`` ids without an end token.
        """

    def likeliest(self, states: Any, prompts: np.ndarray, among: Sequence[int]) -> list[int]:
        """The likeliest of the ids ``among`` after each prompt int64 ``[clips, length]``."""

    def language_logits(self, states: Any, languages: Mapping[str, int]) -> np.ndarray:
        """Logits of the tokens of some languages after the start token, up to a constant of each clip, float ``[clips,
        languages]``."""

    def no_speech(self, states: Any) -> list[float]:
        """The probability of each clip that nobody speaks, 0 to 1."""

    def read(
        self, states: Any, prompts: np.ndarray, texts: Sequence[Sequence[int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Let the decoder read a text after each prompt int64 ``[clips, length]``.

        Returns:
            For each clip ``weights`` and ``log_probs`` as `training.models.abilities.ReadText` has them.
        """

    def head(self, states: Any, head: np.ndarray) -> np.ndarray:
        """Logits of a CTC head float32 ``[characters, width + 1]``: ``[clips, frames, characters]``."""


@dataclass(frozen=True)
class ExportedScored:
    """`training.models.safeguards.ScoredDecoder` of an exported Whisper."""

    description: Description
    text: Detokenizer

    @property
    def vocabulary(self) -> int:
        return self.description.vocabulary

    def prompts(self, batch: Batch) -> np.ndarray:
        return batch["prompts"]

    def encode(self, model: Engine, batch: Batch) -> Any:
        return model.encode(batch["input_features"])

    def row(self, model: Engine, states: Any, row: int) -> Any:
        return model.row(states, row)

    def no_speech(self, model: Engine, states: Any) -> list[float]:
        return model.no_speech(states)

    def before(self, text: str) -> list[int]:
        prompts, positions = self.description.prompts, self.description.positions
        assert prompts is not None and positions is not None
        if prompts.previous is None:
            raise ValueError("the tokenizer has no token <|startofprev|>")
        return [prompts.previous, *text_ids(self.text, f" {text.strip()}")[-(positions // 2 - 1) :]]

    def with_prompt(self, prompts: np.ndarray, text: str) -> np.ndarray:
        before = np.array(self.before(text), dtype=np.int64)
        return np.concatenate((np.broadcast_to(before, (*prompts.shape[:2], len(before))), prompts), axis=-1)

    def decode(
        self, model: Engine, prompts: np.ndarray, states: Any, search: Search
    ) -> Sequence[Sequence[Scored]]:
        assert self.description.positions is not None
        rows = prompts.reshape(-1, prompts.shape[-1])
        bounded = replace(search, new=new_tokens(search.new, self.description.positions, rows.shape[-1]))
        found = [
            Scored(self.text(one.ids), one.log_probability)
            for one in model.generate(states, rows, bounded, scored=True)
        ]
        tasks = prompts.shape[1]
        return [found[n : n + tasks] for n in range(0, len(found), tasks)]


@dataclass(frozen=True)
class DetectLanguage:
    """Completes prompts that leave the language open, see `training.models.common.language_choice`."""

    prompts: Prompts

    def __call__(self, model: Engine, batch: Batch, states: Any = None) -> LanguagePrediction:
        prompts, detection = batch["prompts"], self.prompts.detection
        open_ = prompts[:, 0, 1] == OPEN_LANGUAGE
        if not open_.any():
            return LanguagePrediction(batch, states, [{}] * len(prompts))
        assert detection is not None
        if states is None:
            states = model.encode(batch["input_features"])
        ids = {code: self.prompts.languages[code] for code in detection.languages}
        tokens = np.array(list(ids.values()))

        def beginnings(row: int, languages: list[int]) -> list[Beginning]:
            asked = [[self.prompts.start, int(tokens[n]), *detection.prompt] for n in languages]
            found = model.generate(
                model.row(states, row), np.array(asked), Search(new=BEGINNING), scored=True
            )
            return [Beginning(one.ids, one.log_probability) for one in found]

        shares = language_shares(model.language_logits(states, ids), open_.tolist(), beginnings)
        completed = prompts.copy()
        detected = tokens[shares.argmax(axis=-1)]
        completed[:, :, 1] = np.where(open_[:, None], detected[:, None], prompts[:, :, 1])
        found = [
            dict(zip(ids, row, strict=True)) if is_open else {}
            for row, is_open in zip(shares.tolist(), open_.tolist(), strict=True)
        ]
        return LanguagePrediction({**batch, "prompts": completed}, states, found)


@dataclass(frozen=True)
class PredictDomain:
    """Completes prompts that leave the domain open, see `training.models.domain_whisper.build.PredictDomain`."""

    domains: Mapping[str, int]

    def __call__(self, model: Engine, batch: Batch, states: Any = None) -> DomainPrediction:
        prompts = batch["prompts"]
        open_ = (prompts[:, 0] == OPEN).any(axis=-1)
        if not open_.any():
            return DomainPrediction(batch, states, [None] * len(prompts))
        if states is None:
            states = model.encode(batch["input_features"])
        place = int((prompts[open_][0, 0] == OPEN).argmax())
        predicted = model.likeliest(states, prompts[:, 0, :place], list(self.domains.values()))
        completed = np.where(prompts == OPEN, np.array(predicted)[:, None, None], prompts)
        names = list(_names(self.domains, predicted, open_))
        return DomainPrediction({**batch, "prompts": completed}, states, names)


def _names(domains: Mapping[str, int], predicted: Sequence[int], open_: np.ndarray) -> Iterator[str | None]:
    by_id = {i: name for name, i in domains.items()}
    for i, asked in zip(predicted, open_.tolist(), strict=True):
        yield by_id[i] if asked else None


@dataclass(frozen=True)
class ExportedReader:
    """`training.models.abilities.TextReader` of an exported Whisper."""

    description: Description
    text: Detokenizer

    def ids(self, word: str) -> list[int]:
        return text_ids(self.text, f" {word}")

    def room(self, batch: Batch) -> int:
        assert self.description.positions is not None
        return self.description.positions - batch["prompts"].shape[-1]

    def __call__(
        self, model: Engine, batch: Batch, texts: Sequence[Sequence[int]], states: Any = None
    ) -> list[ReadText]:
        if states is None:
            states = model.encode(batch["input_features"])
        place = self.description.tasks.index(TRANSCRIBE)
        found = model.read(states, batch["prompts"][:, place], texts)
        return [
            ReadText(weights, log_probs, log_mel)
            for (weights, log_probs), log_mel in zip(found, batch["input_features"], strict=True)
        ]


def head_frames(description: Description, folder: Path) -> CtcFrames | None:
    """The frames of the CTC head on the encoder; None for a model without one. `UserError` where its weights are damaged."""
    if description.head is None:
        return None
    characters, weights = CtcCharacters(description.head.characters), array_of(folder / HEAD)
    if weights.ndim != 2 or len(weights) != len(characters):
        raise UserError(
            f"{folder / HEAD}: shape {weights.shape}, for {len(characters)} characters; export the model again"
        )
    return CtcFrames(
        tokens=("", *characters.characters),
        blank=0,
        seconds_per_frame=1 / ENCODER_FRAMES_PER_SECOND,
        log_probs=_HeadLogProbs(weights.astype(np.float32)),
        speller=characters,
    )


@dataclass(frozen=True)
class _HeadLogProbs:
    """See `training.models.whisper.build.head_log_probs`."""

    head: np.ndarray

    def __call__(self, model: Engine, batch: Batch, states: Any = None) -> list[np.ndarray]:
        rows = log_softmax(
            model.head(model.encode(batch["input_features"]) if states is None else states, self.head)
        )
        lengths = [
            max(1, math.ceil(seconds * ENCODER_FRAMES_PER_SECOND)) for seconds in batch["clip_seconds"]
        ]
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]
