"""Speech with pauses at known places: silences put between the words of utterances, and single words in a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.example import Word

RATE = 16_000
PAUSE = (0.2, 1.5)
"""Seconds of a silence, from and to."""
FLOOR_DB = -65.0
"""Level of the noise in a silence, in dB of full scale."""
CHAIN_RMS = 0.06
EDGE_DB = -35.0
"""Below the loudest 5 ms of a recorded word: what is softer at its ends is cut off."""


@dataclass(frozen=True)
class Paused:
    """A clip, float ``[samples]`` at `RATE`, and its words with their gold times in seconds."""

    wave: np.ndarray
    words: tuple[Word, ...]


def with_pauses(wave: np.ndarray, words: Sequence[Word], share: float, rng: np.random.Generator) -> Paused:
    """The clip with silence before, after, and in a ``share`` of the places between two words.

    A silence goes into the middle of what lies between the two words; the times of the words move with the sound.
    """
    pieces, moved, cut = [silence(rng)], [], 0
    shift = len(pieces[0])
    for number, word in enumerate(words):
        if number and rng.random() < share:
            place = round((words[number - 1].end + word.start) / 2 * RATE)
            pieces += [wave[cut:place], silence(rng)]
            cut, shift = place, shift + len(pieces[-1])
        moved.append(Word(text=word.text, start=word.start + shift / RATE, end=word.end + shift / RATE))
    return Paused(np.concatenate([*pieces, wave[cut:], silence(rng)]), tuple(moved))


def chained(words: Sequence[tuple[str, np.ndarray]], share: float, rng: np.random.Generator) -> Paused:
    """Recorded single words one after the other, a silence before a ``share`` of them, before the first and after the last."""
    pieces: list[np.ndarray] = []
    placed: list[Word] = []
    length = 0
    for number, (text, wave) in enumerate(words):
        gap = silence(rng) if not number or rng.random() < share else np.zeros(0)
        start = length + len(gap)
        length = start + len(wave)
        pieces += [gap, wave * (CHAIN_RMS / np.sqrt(np.mean(wave**2)))]
        placed.append(Word(text=text, start=start / RATE, end=length / RATE))
    return Paused(np.concatenate([*pieces, silence(rng)]), tuple(placed))


def with_noise(clip: Paused, snr_db: float | None, rng: np.random.Generator) -> Paused:
    """White noise over all of the clip, so many dB below its words; None: as it is."""
    if snr_db is None:
        return clip
    spoken = [clip.wave[round(word.start * RATE) : round(word.end * RATE)] for word in clip.words]
    level = np.sqrt(np.mean(np.concatenate(spoken) ** 2)) * 10 ** (-snr_db / 20)
    return Paused(clip.wave + level * rng.standard_normal(len(clip.wave)), clip.words)


def silence(rng: np.random.Generator) -> np.ndarray:
    """Some seconds of soft noise."""
    return rng.standard_normal(int(rng.uniform(*PAUSE) * RATE)) * 10 ** (FLOOR_DB / 20)


def trimmed(wave: np.ndarray) -> np.ndarray:
    """The word without what is softer than `EDGE_DB` at its ends, in steps of 5 ms."""
    step = RATE // 200
    frames = wave[: len(wave) // step * step].reshape(-1, step)
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(level > level.max() + EDGE_DB)
    return wave[loud[0] * step : (loud[-1] + 1) * step]
