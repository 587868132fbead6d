"""Measures decoded audio: length, loudness, silence, clipping. One block is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from training.data import audio
from training.data.example import AudioRef
from training.data.sound.downmix import Energies, mono

WINDOW_SECONDS = 0.025
SILENCE_DB = -60.0
"""A window whose level lies below this is silent. Digital silence and a constant offset are `FLOOR_DB`."""
FULL_SCALE = 0.999
CLIPPED_RUN = 3
"""So many samples in a row at full scale are clipping; a single one may be a peak that was normalised."""
BLOCK_SECONDS = 10.0
FLOOR_DB = -200.0


@dataclass(frozen=True, slots=True)
class Level:
    """``seconds`` that were decoded; ``peak_db`` and ``rms_db`` in dB of full scale, shares from 0 to 1.

    ``loudest_db``: RMS of the loudest 25 ms wherever they begin, less their mean, because an offset is no sound.
    ``constant``: all samples have one value. ``channel``: the one that stands for all of them, because their mean would
    lose it (`training.data.sound.downmix`), and that was measured; None: their mean was.
    """

    seconds: float
    peak_db: float
    rms_db: float
    loudest_db: float
    clipped_share: float
    silent_share: float
    constant: bool
    channel: int | None = None


class Meter:
    """Sums over blocks; where a block ends makes no difference."""

    def __init__(self, silence_db: float = SILENCE_DB) -> None:
        self.silence = 10.0 ** (silence_db / 20)
        self.peak = self.squares = self.loudest = 0.0
        self.lowest, self.highest = np.inf, -np.inf
        self.samples = self.clipped = self.windows = self.silent = 0
        self.rate = 1
        self.finite = True
        self.tail = np.zeros(0, np.float64)

    def add(self, block: np.ndarray, rate: int, channel: int | None = None) -> None:
        """``block`` float32 ``[time, channels]``, at least one sample, at ``rate`` a second; clipping is that of all
        channels, the levels are those of ``channel``, None: of their mean."""
        full = (np.abs(block) >= FULL_SCALE).any(axis=1)
        runs = full[2:] & full[1:-1] & full[:-2] if len(full) >= CLIPPED_RUN else np.zeros(0, bool)
        self.clipped += int(runs.sum() + 2 * (np.diff(runs.astype(np.int8), prepend=0) == 1).sum())
        with np.errstate(over="ignore", invalid="ignore"):  # the sum of the channels may leave float32
            one = mono(block, channel).astype(np.float64)
        self.finite = self.finite and bool(np.isfinite(one).all())
        if self.finite:
            self._add_mono(one, rate)

    def _add_mono(self, samples: np.ndarray, rate: int) -> None:
        self.peak = max(self.peak, float(np.abs(samples).max()))
        self.lowest, self.highest = (
            min(self.lowest, float(samples.min())),
            max(self.highest, float(samples.max())),
        )
        self.squares += float(np.square(samples).sum())
        width, self.rate = max(1, round(WINDOW_SECONDS * rate)), rate
        joined = np.concatenate([self.tail, samples])
        levels = _window_levels(joined, width)
        if len(levels):
            self.loudest = max(self.loudest, float(levels.max()))
            side_by_side = levels[(len(self.tail) - self.samples) % width :: width]
            self.windows += len(side_by_side)
            self.silent += int((side_by_side < self.silence).sum())
        self.samples += len(samples)
        self.tail = joined[max(0, len(joined) - width + 1) :]

    def level(self) -> Level:
        """The whole. Needs a sample."""
        if not self.windows:  # all of it is shorter than a window
            self.loudest = float(self.tail.std())
        return Level(
            seconds=self.samples / self.rate,
            peak_db=_db(self.peak),
            rms_db=_db(np.sqrt(self.squares / self.samples)),
            loudest_db=_db(self.loudest),
            clipped_share=min(1.0, self.clipped / self.samples),
            silent_share=self.silent / self.windows if self.windows else float(self.loudest < self.silence),
            constant=self.lowest == self.highest,
        )


def measure(ref: AudioRef, silence_db: float = SILENCE_DB) -> Level:
    """Decode a stretch from its first to its last sample. Raises `training.data.audio.AudioError`."""
    return measure_blocks(audio.stream(ref, BLOCK_SECONDS), ref.path, silence_db)


def measure_blocks(
    blocks: Iterable[tuple[np.ndarray, int]], name: str, silence_db: float = SILENCE_DB
) -> Level:
    """`measure` for blocks ``(float32 [time, channels], sample rate)`` of the sound called ``name``."""
    meters: dict[int | None, Meter] = {}
    energies = Energies()
    for block, rate in blocks:
        energies.add(block)
        channels = range(block.shape[1] if block.shape[1] > 1 else 0)
        for channel in (None, *channels):
            meters.setdefault(channel, Meter(silence_db)).add(block, rate, channel)
    meter = meters.get(energies.choice) or Meter(silence_db)
    if not meter.finite:
        raise audio.InfiniteSamples(name, "the mean of its channels is too large for a number of 32 bits")
    if not meter.samples:
        raise audio.AudioError(name, "holds no samples")
    return replace(meter.level(), channel=energies.choice)


def _window_levels(samples: np.ndarray, width: int) -> np.ndarray:
    """Standard deviation of the window that begins at each sample, float64; an offset is no sound."""
    if len(samples) < width:
        return np.zeros(0)
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (samples, np.square(samples)))
    means, powers = ((x[width:] - x[:-width]) / width for x in (sums, squares))
    return np.sqrt(np.maximum(powers - np.square(means), 0.0))


def _db(amplitude: float) -> float:
    return max(FLOOR_DB, 20.0 * float(np.log10(amplitude))) if amplitude > 0 else FLOOR_DB
