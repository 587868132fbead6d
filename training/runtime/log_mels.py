"""Whisper's log-mels with numpy alone, as `transformers.WhisperFeatureExtractor` computes them (Radford et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.models.export_parts import LogMelSettings

MEL_FILTERS = "mel_filters.npy"


@dataclass(frozen=True)
class ExtractorSizes:
    """The sizes of a feature extractor, under the names that transformers gives them; `training.models.common.log_mels` asks for
    these."""

    settings: LogMelSettings

    @property
    def sampling_rate(self) -> int:
        return self.settings.sampling_rate

    @property
    def n_samples(self) -> int:
        return self.settings.n_samples

    @property
    def hop_length(self) -> int:
        return self.settings.hop_length


@dataclass(frozen=True)
class LogMels(ExtractorSizes):
    """The extractor that `training.models.common.log_mels.log_mel` calls.

    settings: sizes. filters: float32 ``[n_fft / 2 + 1, mels]``.
    """

    filters: np.ndarray

    @classmethod
    def of_folder(cls, settings: LogMelSettings, folder: Path) -> LogMels:
        """With the filters of an exported folder. Raises `UserError` where they are not the settings'."""
        filters = array_of(folder / MEL_FILTERS)
        expected = (settings.n_fft // 2 + 1, settings.mels)
        if filters.shape != expected:
            raise UserError(
                f"{folder / MEL_FILTERS}: shape {filters.shape}, not {expected}; export the model again"
            )
        return cls(settings, filters.astype(np.float32))

    def __call__(self, waveform: np.ndarray, **stock: Any) -> dict[str, np.ndarray]:
        """Log-mels of one clip.

        Args:
            waveform: float32 ``[time]``.
            stock: further arguments of transformers' extractor, which change nothing here: the clip is not padded.

        Returns:
            ``input_features``: float32 ``[1, mels, time / hop_length]``.
        """
        half = self.settings.n_fft // 2
        padded = np.pad(waveform.astype(np.float32), half, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.settings.n_fft)[:: self.hop_length]
        spectrum = np.fft.rfft(frames[: len(waveform) // self.hop_length] * _hann(self.settings.n_fft))
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        log = self._bands @ power.astype(np.float32, copy=False).T
        np.log10(np.maximum(log, np.float32(1e-10), out=log), out=log)
        np.maximum(log, log.max() - np.float32(8.0), out=log)
        return {"input_features": ((log + np.float32(4.0)) / np.float32(4.0))[None]}

    @cached_property
    def _bands(self) -> np.ndarray:
        """float32 ``[mels, n_fft / 2 + 1]``."""
        return np.ascontiguousarray(self.filters.T)


@lru_cache(maxsize=4)
def _hann(length: int) -> np.ndarray:
    """The periodic Hann window, float32 ``[length]``."""
    return np.hanning(length + 1)[:-1].astype(np.float32)


def array_of(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file; one that holds pickled objects is refused."""
    try:
        with path.open("rb") as file:
            found: np.ndarray = np.lib.format.read_array(file)
            return found
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); export the model again") from error
