"""Both sides of the comparison: the token ids and texts of a model for some utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.data.batch_policy import longest_first
from training.data.dataset import SpeechDataset
from training.decoding.ctc_decoding import with_frame_decoder
from training.decoding.predict import PromptsOnly, longest_hypothesis
from training.models.architecture import Decoded, DecodeOptions, SpeechModel


@dataclass(frozen=True)
class Utterances:
    """The utterances of a comparison, in batches that both sides get alike.

    rows: a manifest. batch_seconds: of audio. max_new_tokens: None: by the length of the longest clip.
    """

    rows: Any
    batch_seconds: float = 60.0
    max_new_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def batches(self) -> list[list[int]]:
        """Places of the utterances of each batch."""
        return longest_first(self.rows.durations, self.batch_seconds)

    def batch(self, model: SpeechModel, rows: Sequence[int]) -> dict[str, Any]:
        """These utterances as the model takes them."""
        dataset = SpeechDataset(self.rows, PromptsOnly(model.encode), model.sample_rate)
        return model.on_device(model.collate([dataset[row] for row in rows]))

    def bound(self, rows: Sequence[int]) -> int:
        """The most new tokens of a batch."""
        return self.max_new_tokens or longest_hypothesis(max(float(self.rows.durations[row]) for row in rows))


def decode_all(model: SpeechModel, utterances: Utterances, end: int | None) -> list[Mapping[str, Decoded]]:
    """What the model makes of each utterance, greedy, by task; ``ids`` are those before ``end``."""
    found: dict[int, dict[str, Decoded]] = {}
    with model.inference():
        for rows in utterances.batches:
            decoded = _batch(model, utterances, rows, end)
            for place, row in enumerate(rows):
                found[row] = {task: of_task[place] for task, of_task in decoded.items()}
    return [found[row] for row in range(len(utterances))]


def _batch(
    model: SpeechModel, utterances: Utterances, rows: Sequence[int], end: int | None
) -> Mapping[str, list[Decoded]]:
    batch, states = utterances.batch(model, rows), None
    options = with_frame_decoder(model, DecodeOptions(max_new_tokens=utterances.bound(rows)))
    if model.language_detection is not None:
        batch, states, _ = model.language_detection.detect(model.model, batch, states)
    if model.domains is not None:
        batch, states, _ = model.domains.predict(model.model, batch, states)
    return {
        task: [replace(one, ids=before(one.ids, end)) for one in of_task]
        for task, of_task in model.decode(batch, options, states=states).items()
    }


def before(ids: Sequence[int], end: int | None) -> tuple[int, ...]:
    """The ids before the end token."""
    return tuple(ids[: ids.index(end)] if end in ids else ids)
