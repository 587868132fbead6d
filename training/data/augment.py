"""Augmentation of the training clips, drawn again in every epoch: speed, noise, reverberation, volume, shift, SpecAugment.

Everything is drawn in the data workers from a generator of (seed, epoch, row), so that a run can be repeated
and resumed whatever the number of workers and processes. Evaluation does not use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.base.errors import UserError
from training.base.system_files import listed
from training.data.audio import SOUNDFILE_SUFFIXES, load_audio, probe
from training.data.example import AudioRef

if TYPE_CHECKING:
    from training.data.options import Augmentation

_QUIETEST = 1e-8
_CACHED_RESPONSES = 256


@dataclass(frozen=True)
class Moved:
    """Where the speech of a changed clip lies: second ``t`` of the clip became ``lead + scale * t``."""

    scale: float = 1.0
    lead: float = 0.0


@dataclass(frozen=True)
class Augment:
    """The augmentation of one run; picklable. noises, impulse_responses: paths of audio files, sorted by name."""

    settings: Augmentation
    sample_rate: int
    seed: int
    noises: tuple[str, ...] = ()
    impulse_responses: tuple[str, ...] = ()

    def waits(self, epoch: int) -> bool:
        """Whether the clips of this epoch are used unchanged (``after_epochs``)."""
        return epoch < self.settings.after_epochs

    def generator(self, epoch: int, index: int) -> np.random.Generator:
        """The random generator of row ``index`` in this epoch."""
        return np.random.default_rng([self.seed, epoch, index])

    def sound(self, waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The first result of `moved`."""
        return self.moved(waveform, draw)[0]

    def moved(self, waveform: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Moved]:
        """Apply the changes, each with its own probability.

        Args:
            waveform: float32 ``[samples]``, mono, at ``sample_rate``.
            draw: the generator of this row and epoch.

        Returns:
            The changed clip, float32 ``[samples]``, and where its speech has moved: speed and shift change its length.
        """
        found = Moved()
        if self.settings.speed.prob and draw.random() < self.settings.speed.prob:
            before, waveform = len(waveform), self._speed(waveform, draw)
            found = replace(found, scale=len(waveform) / max(before, 1))
        if self.settings.shift.prob and draw.random() < self.settings.shift.prob:
            waveform, lead = self._shift(waveform, draw)
            found = replace(found, lead=lead / self.sample_rate)
        steps: tuple[tuple[Any, Callable[[np.ndarray, np.random.Generator], np.ndarray]], ...] = (
            (self.settings.reverb, self._reverb),
            (self.settings.noise, self._noise),
            (self.settings.volume, self._volume),
        )
        for settings, change in steps:
            if settings.prob and draw.random() < settings.prob:
                waveform = change(waveform, draw)
        return waveform.astype(np.float32, copy=False), found

    def together(self, clips: Sequence[np.ndarray], draw: np.random.Generator) -> np.ndarray:
        """The clips in sequence with a random silence between them, float32 ``[samples]``."""
        return in_sequence(clips, self.pauses(len(clips), draw))

    def pauses(self, clips: int, draw: np.random.Generator) -> list[int]:
        """Random silences between so many clips, in samples."""
        longest = round(self.settings.join.pause * self.sample_rate)
        return draw.integers(0, longest + 1, size=clips - 1).tolist()

    def wide_pauses(self, clips: Sequence[np.ndarray], longest: float | None) -> list[int]:
        """Silences of a second between the clips, so that each keeps all frames that it has alone, in samples; shorter
        ones where the whole would be longer than ``longest`` seconds."""
        pause = self.sample_rate
        if longest is not None and len(clips) > 1:
            room = round(longest * self.sample_rate) - sum(map(len, clips))
            pause = max(0, min(pause, room // (len(clips) - 1)))
        return [pause] * (len(clips) - 1)

    def features(self, features: dict[str, Any], draw: np.random.Generator) -> dict[str, Any]:
        """SpecAugment on ``input_features`` ``[frames, bands]``, whose mean is 0."""
        spec = self.settings.spec
        if not spec.prob or draw.random() >= spec.prob:
            return features
        masked = features["input_features"].copy()
        frames, bands = masked.shape
        for start, stop in _spans(draw, bands, spec.freq_masks, spec.freq_width):
            masked[:, start:stop] = 0.0
        for start, stop in _spans(draw, frames, spec.time_masks, spec.time_width):
            masked[start:stop] = 0.0
        return {**features, "input_features": masked}

    def _speed(self, waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        import soxr

        factor = float(draw.uniform(self.settings.speed.low, self.settings.speed.high))
        return soxr.resample(waveform, self.sample_rate * factor, self.sample_rate, quality="MQ")

    def _shift(self, waveform: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, int]:
        """The clip with silence on both sides, and the samples before it."""
        silence = draw.integers(0, round(self.settings.shift.seconds * self.sample_rate) + 1, size=2)
        return np.pad(waveform, (int(silence[0]), int(silence[1]))), int(silence[0])

    def _reverb(self, waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        from scipy.signal import fftconvolve

        chosen = int(draw.integers(len(self.impulse_responses)))
        response = impulse_response(self.impulse_responses[chosen], self.sample_rate)
        wet = fftconvolve(waveform, response)[: len(waveform)]
        return wet * (_rms(waveform) / max(_rms(wet), _QUIETEST))

    def _noise(self, waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        settings = self.settings.noise
        noise = self._recorded(len(waveform), draw) if self.noises else coloured_noise(len(waveform), draw)
        ratio = 10 ** (float(draw.uniform(settings.snr_low, settings.snr_high)) / 20)
        return waveform + noise * (_rms(waveform) / max(_rms(noise), _QUIETEST) / ratio)

    def _recorded(self, samples: int, draw: np.random.Generator) -> np.ndarray:
        """A stretch of a file of the noise folder, repeated where it is shorter than the clip."""
        path = self.noises[int(draw.integers(len(self.noises)))]
        total, wanted = probe(path).duration, samples / self.sample_rate
        start = float(draw.uniform(0.0, max(0.0, total - wanted)))
        stretch = AudioRef(path=path, start=start, end=min(total, start + wanted))
        return np.resize(load_audio(stretch, self.sample_rate), samples)

    def _volume(self, waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        settings = self.settings.volume
        return waveform * 10 ** (float(draw.uniform(settings.low_db, settings.high_db)) / 20)


def make_augment(
    settings: Augmentation, *, sample_rate: int, seed: int, spectrogram: bool, joinable: bool = True
) -> Augment | None:
    """The augmentation that a configuration asks for; None where it asks for none.

    Raises `UserError` for a folder without sound, for SpecAugment on a model that has no spectrogram, and for
    joined clips where they are not ``joinable``.
    """
    if not settings.active:
        return None
    if settings.join.prob and not joinable:
        raise UserError(
            "augmentation.join.prob: only CTC models and Whisper take several clips as one utterance (the labels of other "
            "decoders are limited); set it to 0"
        )
    if settings.spec.prob and not spectrogram:
        raise UserError(
            "augmentation.spec.prob: this model makes no spectrogram in the data workers; set it to 0 (Whisper and "
            "wav2vec2 mask within the model: mask_time_prob in model.sizes)"
        )
    noise, reverb = settings.noise, settings.reverb
    noises = _sounds("augmentation.noise.folder", noise.folder) if noise.prob and noise.folder else ()
    responses = _sounds("augmentation.reverb.folder", reverb.folder) if reverb.prob and reverb.folder else ()
    return Augment(settings, sample_rate, seed, noises, responses)


def in_sequence(clips: Sequence[np.ndarray], pauses: Sequence[int]) -> np.ndarray:
    """The clips one after the other, ``pauses[i]`` samples of silence behind clip ``i`` and none behind the last."""
    return np.concatenate([*(np.pad(c, (0, n)) for c, n in zip(clips[:-1], pauses, strict=False)), clips[-1]])


def coloured_noise(samples: int, draw: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with the frequency to the power of 0 to 2 (white, pink, brown and between)."""
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    frequencies = np.maximum(np.arange(len(spectrum)), 1)
    return np.fft.irfft(spectrum * frequencies ** (-draw.uniform(0.0, 2.0) / 2), n=samples)


@lru_cache(maxsize=_CACHED_RESPONSES)
def impulse_response(path: str, sample_rate: int) -> np.ndarray:
    """An impulse response float32 ``[samples]``, cut before its direct sound: the part before would delay the words."""
    response = load_audio(AudioRef(path=path), sample_rate)
    return response[int(np.abs(response).argmax()) :]


def _sounds(key: str, folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{key}: {folder} is not a folder")
    found = sorted(str(path) for path in listed(folder, "**/*") if path.suffix.lower() in SOUNDFILE_SUFFIXES)
    if not found:
        raise UserError(f"{key}: {folder} holds no sound ({', '.join(sorted(SOUNDFILE_SUFFIXES))})")
    return tuple(found)


def _spans(draw: np.random.Generator, length: int, count: int, share: float) -> list[tuple[int, int]]:
    """``count`` stretches, each of up to ``share`` of the length (Park et al., 2019; widths as in 2020)."""
    widths = draw.integers(0, int(share * length) + 1, size=count).tolist()
    return [(start := int(draw.integers(0, length - width + 1)), start + width) for width in widths]


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0
