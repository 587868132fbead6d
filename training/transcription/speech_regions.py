"""Finds the regions of speech in a recording: by energy, or by Silero's network where it is installed.

A detector turns blocks of sound into one number per frame (its track), and the track of the whole recording into
yes or no. The recording itself is never held in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.base.errors import UserError
from training.data.audio import load_in_order
from training.data.example import AudioRef

SAMPLE_RATE = 16_000
BLOCK_SECONDS = 240.0
DETECTORS = ("energy", "silero")
PERCENTILES = (10, 95)
"""Of the levels of a stretch: what counts as its quiet and its loud parts."""


@dataclass(frozen=True)
class Region:
    """A stretch of a recording, in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Detector(Protocol):
    """``hop``: seconds from one frame of the track to the next."""

    hop: float

    def start(self) -> None:
        """A new recording begins."""

    def track(self, samples: np.ndarray) -> np.ndarray:
        """The next block: float32 ``[time]`` at `SAMPLE_RATE`, a whole number of frames except at the end."""

    def speech(self, track: np.ndarray) -> np.ndarray:
        """Bool ``[frames]``."""

    def steady(self, track: np.ndarray) -> bool:
        """Whether the level hardly changes over a stretch of the track ``[frames]``, as in noise or hum without speech."""


@dataclass
class EnergyDetector:
    """Speech is what stands out from the quiet parts around it.

    The track is the level in dB of 30 ms. The threshold lies at `SHARE` of the way from the quietest to the loudest
    tenth of the `AROUND` seconds on either side, `LEAST` to `MOST` dB above the former: low, because a pause that
    is taken for speech costs time, and a word that is taken for a pause is lost. Where nothing stands out by
    `FLAT` dB all is speech, unless it is below `SILENT` dB of full scale.

    Steady is a second and more whose loudest twentieth is less than `STEADY` dB above its quietest tenth: white and pink noise, hum
    and clipped noise have 0 to 2.3 dB; of recorded speech in noise as loud as the speech no clip had less (docs/internal/log.md).
    """

    SHARE = 0.15
    LEAST, MOST, FLAT = 2.0, 10.0, 6.0
    SILENT = -60.0
    AROUND = 15.0
    STEADY = 2.5

    hop: float = 0.01

    def start(self) -> None:
        pass

    def track(self, samples: np.ndarray) -> np.ndarray:
        step = round(self.hop * SAMPLE_RATE)
        frames = np.pad(samples, (0, -len(samples) % step)).reshape(-1, step)
        # Rumble below 50 Hz is no speech; a steeper filter would take the voice from a hummed "m".
        energy = np.square(frames - frames.mean(axis=1, keepdims=True), dtype=np.float64).mean(axis=1)
        smooth = np.convolve(np.pad(energy, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
        return (10 * np.log10(np.maximum(smooth, 1e-9))).astype(np.float32)

    def speech(self, track: np.ndarray) -> np.ndarray:
        quiet, loud = self._levels(track)
        span = loud - quiet
        threshold = np.maximum(quiet, self.SILENT - 10) + np.clip(self.SHARE * span, self.LEAST, self.MOST)
        return np.where(span < self.FLAT, track > self.SILENT, track > threshold) & (loud > self.SILENT)

    def steady(self, track: np.ndarray) -> bool:
        if len(track) * self.hop < 1.0:  # a vowel may last as long as a shorter stretch
            return False
        quiet, loud = np.percentile(track, PERCENTILES)
        return bool(loud - quiet < self.STEADY)

    def _levels(self, track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 10th and 95th percentile around each frame, from one window for every second."""
        step, half = round(1 / self.hop), round(self.AROUND / self.hop)
        centres = np.arange(0, len(track), step)
        found = [np.percentile(track[max(0, c - half) : c + half], PERCENTILES) for c in centres]
        low, high = np.array(found).T
        frames = np.arange(len(track))
        return np.interp(frames, centres, low), np.interp(frames, centres, high)


@dataclass
class SileroDetector:
    """Silero's network (MIT licence, https://github.com/snakers4/silero-vad), 32 ms frames, through ONNX."""

    threshold: float = 0.35
    hop: float = 512 / SAMPLE_RATE
    _model: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            import onnxruntime  # noqa: F401
            from silero_vad import load_silero_vad
        except ImportError as error:
            raise UserError(
                "silero needs its package: pip install 'polyvox[vad]', or take --detector energy"
            ) from error
        self._model = load_silero_vad(onnx=True)

    def start(self) -> None:
        self._model.reset_states()

    def track(self, samples: np.ndarray) -> np.ndarray:
        import torch

        frames = np.pad(samples, (0, -len(samples) % 512)).reshape(-1, 512)
        with torch.inference_mode():
            values = [float(self._model(torch.from_numpy(frame), SAMPLE_RATE)) for frame in frames]
        return np.array(values, dtype=np.float32)

    def speech(self, track: np.ndarray) -> np.ndarray:
        return track > self.threshold

    def steady(self, track: np.ndarray) -> bool:
        return False  # the network finds no speech in such a stretch, and nothing is known of its level


def make_detector(name: str) -> Detector:
    """``energy`` or ``silero``."""
    assert name in DETECTORS
    return EnergyDetector() if name == "energy" else SileroDetector()


def track_of(path: Path, seconds: float, detector: Detector, channel: int | None = None) -> np.ndarray:
    """The detector's track of a file, or of one channel of it. Raises `training.data.audio.AudioError`."""
    detector.start()
    return np.concatenate([detector.track(block) for block in blocks(path, seconds, detector.hop, channel)])


def part_of(track: np.ndarray, hop: float, start: float, end: float) -> np.ndarray:
    """The frames of a track between two times in seconds; ``hop``: seconds from one frame to the next."""
    return track[round(start / hop) : round(end / hop)]


def blocks(path: Path, seconds: float, hop: float, channel: int | None = None) -> Iterator[np.ndarray]:
    """The file in pieces of about `BLOCK_SECONDS`, each a whole number of frames but the last."""
    step = round(BLOCK_SECONDS / hop) * hop
    stretches = []
    for number in range(max(1, int(np.ceil(seconds / step)))):
        end = (number + 1) * step
        if seconds - number * step >= 1 / SAMPLE_RATE:
            stretches.append(
                AudioRef(
                    path=str(path), start=number * step, end=None if end >= seconds else end, channel=channel
                )
            )
    for samples, _ in load_in_order(stretches, SAMPLE_RATE):
        yield samples


def regions_of(speech: np.ndarray, hop: float, *, least_pause: float = 0.15) -> list[Region]:
    """Stretches of speech in a bool track, parted by at least ``least_pause`` seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech.astype(np.int8), [0]])))
    found: list[Region] = []
    for start, end in zip(edges[::2] * hop, edges[1::2] * hop, strict=True):
        if found and start - found[-1].end < least_pause:
            found[-1] = Region(found[-1].start, float(end))
        else:
            found.append(Region(float(start), float(end)))
    return found


def padded(regions: Sequence[Region], seconds: float, pad: float) -> list[Region]:
    """The regions with ``pad`` seconds more on either side, sharing what lies between them where it is less."""
    middles = [(a.end + b.start) / 2 for a, b in pairwise(regions)]
    lows, highs = [0.0, *middles], [*middles, seconds]
    return [
        Region(max(low, one.start - pad), min(high, one.end + pad))
        for one, low, high in zip(regions, lows, highs, strict=False)
    ]
