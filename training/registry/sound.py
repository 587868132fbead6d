"""What a recording is: hash, header, and the copy that is cheaper to read. One block in memory at a time."""

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
from training.data.levels import BLOCK_SECONDS
from training.errors import UserError


@dataclass(frozen=True, slots=True)
class File:
    """A file as it lies there. ``content_hash`` is "" until `hashed`."""

    path: Path
    size: int
    modified_ns: int
    info: audio.AudioInfo
    content_hash: str = ""


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
    for block, given in audio.stream(AudioRef(path=str(file.path)), BLOCK_SECONDS):
        mono = np.ascontiguousarray(block.mean(axis=1))
        if given == rate:
            yield mono
            continue
        resampler = resampler or soxr.ResampleStream(given, rate, 1, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(mono)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
