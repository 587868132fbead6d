"""A CTC head of characters on the frozen states of an encoder: one linear layer, trained in a minute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from training.data.example import SpokenWord
from training.decoding.ctc_alignment import align_words
from training.models.abilities import CtcFrames
from training.models.common.ctc_characters import CtcCharacters
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND

PASSES, BATCH, RATE = 40, 8, 3e-3


class FrozenCtc:
    """Places words by a linear CTC head that was trained on encoder states ``[frames, width]`` and their texts."""

    def __init__(self, states: Sequence[torch.Tensor], texts: Sequence[str], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.characters = CtcCharacters.of(texts)
        self.head = torch.nn.Linear(states[0].shape[-1], len(self.characters))
        self.frames = CtcFrames(
            tokens=("", *self.characters.characters),
            blank=0,
            seconds_per_frame=1 / ENCODER_FRAMES_PER_SECOND,
            log_probs=self.log_probs,
            speller=self.characters,
        )
        self._fit(states, [torch.tensor(self.characters.encode(text)) for text in texts])

    def _fit(self, states: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
        optimiser = torch.optim.Adam(self.head.parameters(), lr=RATE)
        for _ in range(PASSES):
            for rows in torch.randperm(len(states)).split(BATCH):
                chosen = rows.tolist()
                loss = sum(self._loss(states[row], targets[row]) for row in chosen) / len(chosen)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def _loss(self, states: torch.Tensor, targets: torch.Tensor) -> Any:
        found = self.head(states).log_softmax(dim=-1)
        lengths = torch.tensor(len(states)), torch.tensor(len(targets))
        return torch.nn.functional.ctc_loss(found, targets, *lengths, reduction="sum") / len(targets)

    def log_probs(self, states: torch.Tensor) -> Any:
        """Of one clip, float ``[frames, characters and blank]``."""
        with torch.no_grad():
            return self.head(states).log_softmax(dim=-1).numpy()

    def __call__(self, states: torch.Tensor, text: str) -> tuple[SpokenWord, ...]:
        """The words with their times; none where the head cannot write the text."""
        try:
            return align_words(self.log_probs(states), text, self.frames)
        except ValueError:
            return ()
