"""Made-up utterances with exact word times: phones are vectors, words sums of phones, boundaries between frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from training.models.common.monotone import word_times
from training.models.common.targets import IGNORED
from training.models.voxlm.aligner import AlignerOutput, WordAligner, alignment_loss

FRAME_SECONDS = 0.02
PHONES, WORDS = 16, 24
FRAME_WIDTH, WORD_WIDTH = 32, 24


class Spoken(NamedTuple):
    """A batch. Times are seconds, ``phones`` are CTC labels."""

    frames: torch.Tensor
    frame_lengths: torch.Tensor
    words: torch.Tensor
    word_lengths: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    phones: torch.Tensor

    def row(self, i: int) -> Spoken:
        """One clip as a batch of its own, without padding."""
        frames, words = int(self.frame_lengths[i]), int(self.word_lengths[i])
        phones = self.phones[i : i + 1][:, self.phones[i] != IGNORED]
        cut = (tensor[i : i + 1] for tensor in (self.frames, self.words, self.starts, self.ends))
        sound, text, starts, ends = cut
        return Spoken(
            sound[:, :frames],
            self.frame_lengths[i : i + 1],
            text[:, :words],
            self.word_lengths[i : i + 1],
            starts[:, :words],
            ends[:, :words],
            phones,
        )


class Language:
    """A vocabulary of words of two to four phones, how phones sound and what words mean."""

    def __init__(self, seed: int = 0, noise: float = 0.4) -> None:
        self.rng, self.noise = np.random.default_rng(seed), noise
        self.sounds = self.rng.normal(size=(PHONES, FRAME_WIDTH))
        meanings = self.rng.normal(size=(PHONES, WORD_WIDTH))
        self.spelling = [
            self.rng.choice(PHONES, self.rng.integers(2, 5), replace=False) for _ in range(WORDS)
        ]
        self.meaning = np.stack([meanings[phones].sum(axis=0) for phones in self.spelling])

    def speak(self, clips: int) -> Spoken:
        """Clips of three to eight words."""
        columns = zip(*(self._clip() for _ in range(clips)), strict=True)
        sound, text, starts, ends, phones = map(list, columns)
        return Spoken(
            pad_sequence(sound, batch_first=True),
            torch.tensor([len(one) for one in sound]),
            pad_sequence(text, batch_first=True),
            torch.tensor([len(one) for one in text]),
            pad_sequence(starts, batch_first=True),
            pad_sequence(ends, batch_first=True),
            pad_sequence(phones, batch_first=True, padding_value=IGNORED),
        )

    def _clip(self) -> Iterator[torch.Tensor]:
        """Frames, words, starts, ends and phones of one."""
        text = self.rng.choice(WORDS, self.rng.integers(3, 9))
        time, starts, ends, spoken = self.rng.uniform(0, 5), [], [], []
        for word in text:
            starts.append(time)
            for phone in self.spelling[word]:
                lasts = self.rng.uniform(2, 5)
                spoken.append((time, time + lasts, phone))
                time += lasts
            ends.append(time)
            time += self.rng.uniform(1, 6) * (self.rng.random() < 0.4)
        yield torch.tensor(self._sound(spoken, int(np.ceil(time + 1))), dtype=torch.float32)
        yield torch.tensor(self.meaning[text], dtype=torch.float32)
        yield torch.tensor(starts, dtype=torch.float32) * FRAME_SECONDS
        yield torch.tensor(ends, dtype=torch.float32) * FRAME_SECONDS
        yield torch.tensor([phone + 1 for _, _, phone in spoken])

    def _sound(self, spoken: list[tuple[float, float, int]], frames: int) -> np.ndarray:
        """A frame in which one phone ends and another begins is a mixture of both."""
        sound = self.noise * self.rng.normal(size=(frames, FRAME_WIDTH))
        begin = np.arange(frames)
        for start, end, phone in spoken:
            share = (np.minimum(begin + 1, end) - np.maximum(begin, start)).clip(min=0)
            sound += share[:, None] * self.sounds[phone]
        return sound


def aligner(*, width: int = 64, layers: int = 1, dropout: float = 0.1, seed: int = 0) -> WordAligner:
    """A small one with seeded weights."""
    torch.manual_seed(seed)
    return WordAligner(
        frame_width=FRAME_WIDTH,
        word_width=WORD_WIDTH,
        width=width,
        layers=layers,
        heads=4,
        dropout=dropout,
        characters=PHONES,
    )


def point(model: WordAligner, spoken: Spoken) -> AlignerOutput:
    """What the model says about a batch."""
    return model(spoken.frames, spoken.frame_lengths, spoken.words, spoken.word_lengths)


def loss_of(output: AlignerOutput, spoken: Spoken, **options: float) -> torch.Tensor:
    """The sum over the batch, with CTC over the phones."""
    return alignment_loss(
        output,
        spoken.starts,
        spoken.ends,
        spoken.frame_lengths,
        spoken.word_lengths,
        frame_seconds=FRAME_SECONDS,
        ctc_labels=spoken.phones,
        **options,
    )


def train(
    model: WordAligner,
    language: Language,
    steps: int,
    *,
    clips: int = 16,
    peak_rate: float = 2e-3,
    **options: float,
) -> None:
    """So many steps of AdamW, every one on new utterances, with a rate that rises once and falls once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        spoken = language.speak(clips)
        loss = loss_of(point(model, spoken), spoken, **options) / spoken.word_lengths.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def errors(model: WordAligner, spoken: Spoken) -> np.ndarray:
    """Signed errors of starts and ends in frames, ``[words of all clips, 2]``."""
    model.eval()
    output = point(model, spoken)
    pointers = [logits.log_softmax(dim=-1).numpy() for logits in (output.start_logits, output.end_logits)]
    found = []
    for i in range(len(spoken.frames)):
        frames, words = int(spoken.frame_lengths[i]), int(spoken.word_lengths[i])
        starts, ends = (pointer[i, :words, :frames] for pointer in pointers)
        times = word_times(starts, ends, FRAME_SECONDS, frames * FRAME_SECONDS)
        wanted = torch.stack((spoken.starts[i, :words], spoken.ends[i, :words]), dim=1).numpy()
        found.append((times - wanted) / FRAME_SECONDS)
    return np.concatenate(found)
