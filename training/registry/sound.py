"""What a recording is, and how it sounds: hash, header, loudness, silence, clipping. One block in memory at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data import audio
from training.data.derived import sha256
from training.data.example import AudioRef
from training.errors import UserError

WINDOW_SECONDS = 0.025
SILENCE_DB = -60.0
"""A window whose level lies below this is silent. Digital silence and a constant offset are -inf."""
FULL_SCALE = 0.999
CLIPPED_RUN = 3
"""So many samples in a row at full scale are clipping; a single one may be a peak that was normalised."""
_BLOCK_SECONDS = 10.0
_FLOOR_DB = -200.0


@dataclass(frozen=True, slots=True)
class File:
    """A file as it lies there. ``content_hash`` is "" until `hashed`."""

    path: Path
    size: int
    modified_ns: int
    info: audio.AudioInfo
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """``peak_db`` and ``rms_db`` in dB of full scale, shares from 0 to 1, ``loudest_db``: of the loudest window."""

    peak_db: float
    rms_db: float
    loudest_db: float
    clipped_share: float
    silent_share: float


def look(path: Path) -> File:
    """Size, age and header of a file. Raises `training.data.audio.AudioError`."""
    info = audio.probe(path)
    stat = path.stat()
    return File(path, stat.st_size, stat.st_mtime_ns, info)


def hashed(file: File) -> File:
    """The same with the SHA-256 of its content."""
    try:
        content = sha256(file.path)
    except OSError as error:
        raise audio.AudioError(file.path, f"cannot be read: {error.strerror}") from error
    return File(file.path, file.size, file.modified_ns, file.info, content)


class _Meter:
    """Sums over blocks."""

    def __init__(self, silence_db: float) -> None:
        self.silence = 10.0 ** (silence_db / 20)
        self.peak = self.squares = self.loudest = 0.0
        self.samples = self.clipped = self.windows = self.silent = 0

    def add(self, block: np.ndarray, rate: int) -> None:
        """``block`` float32 ``[time, channels]``."""
        full = (np.abs(block) >= FULL_SCALE).any(axis=1)
        runs = full[2:] & full[1:-1] & full[:-2] if len(full) >= CLIPPED_RUN else np.zeros(0, bool)
        self.clipped += int(runs.sum() + 2 * (np.diff(runs.astype(np.int8), prepend=0) == 1).sum())
        mono = block.mean(axis=1)
        self.peak = max(self.peak, float(np.abs(mono).max()))
        self.squares += float(np.square(mono, dtype=np.float64).sum())
        self.samples += len(mono)
        levels = _window_levels(mono, max(1, round(WINDOW_SECONDS * rate)))
        self.loudest = max(self.loudest, float(levels.max()))
        self.windows += len(levels)
        self.silent += int((levels < self.silence).sum())

    def level(self) -> Level:
        """The whole."""
        return Level(
            peak_db=_db(self.peak),
            rms_db=_db(np.sqrt(self.squares / self.samples)),
            loudest_db=_db(self.loudest),
            clipped_share=min(1.0, self.clipped / self.samples),
            silent_share=self.silent / self.windows,
        )


def measure(ref: AudioRef, silence_db: float = SILENCE_DB) -> Level:
    """Decode a stretch from its first to its last sample. Raises `training.data.audio.AudioError`."""
    meter = _Meter(silence_db)
    for block, rate in audio.stream(ref, _BLOCK_SECONDS):
        meter.add(block, rate)
    return meter.level()


def _window_levels(mono: np.ndarray, width: int) -> np.ndarray:
    """Standard deviation per window: an offset is no sound. A rest shorter than a window is left out."""
    whole = len(mono) // width * width
    windows = mono[:whole].reshape(-1, width) if whole else mono[None, :]
    return windows.std(axis=1, dtype=np.float64)


def _db(amplitude: float) -> float:
    return max(_FLOOR_DB, 20.0 * float(np.log10(amplitude))) if amplitude > 0 else _FLOOR_DB


def needs_conversion(file: File, sample_rate: int) -> bool:
    """Whether reading it again and again costs more than a copy: more samples or channels than needed, or ffmpeg.

    A lower rate does not: a copy would be larger and hold nothing more.
    """
    more = file.info.channels > 1 or file.info.sample_rate > sample_rate
    return more or audio.needs_ffmpeg(file.path)


def convert(file: File, folder: Path, sample_rate: int) -> Path:
    """Mono, at most ``sample_rate``, 16-bit WAV in ``folder``, named by content; what is there already stays.

    Raises `UserError` when the disk is full, `training.data.audio.AudioError` for sound that cannot be read.
    """
    target = folder / file.content_hash[:2] / f"{file.content_hash}.wav"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(number)
    part = Path(name)
    try:
        _write(part, file, min(sample_rate, file.info.sample_rate))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _write(part: Path, file: File, rate: int) -> None:
    import soundfile

    expected = file.info.frames * rate / file.info.sample_rate
    try:
        with soundfile.SoundFile(part, "w", rate, 1, format="WAV", subtype="PCM_16") as sink:
            for block in _resampled(file, rate):
                sink.write(block)
        with soundfile.SoundFile(part) as written:  # libsndfile does not report every write that failed
            short = written.frames < expected - max(rate // 10, 0.01 * expected)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _cannot_write(part, error) from error
    if short:
        raise _cannot_write(part, "fewer samples than were given")


def _cannot_write(part: Path, why: Any) -> UserError:
    return UserError(f"{part.parent}: converted audio cannot be written ({why}); is the disk full?")


def _resampled(file: File, rate: int) -> Iterator[np.ndarray]:
    import soxr

    resampler = None
    for block, given in audio.stream(AudioRef(path=str(file.path)), _BLOCK_SECONDS):
        mono = np.ascontiguousarray(block.mean(axis=1))
        if given == rate:
            yield mono
            continue
        resampler = resampler or soxr.ResampleStream(given, rate, 1, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(mono)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
