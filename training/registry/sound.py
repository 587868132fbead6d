"""What a recording is: hash, header, and the copy that is cheaper to read. One block in memory at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.base.files import sha256
from training.data import audio
from training.data.example import AudioRef
from training.data.levels import BLOCK_SECONDS
from training.data.sound.downmix import agreed, mono

_ALL = -1
"""In place of a channel's number: all of them."""


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


def convert(file: File, folder: Path, sample_rate: int, *, keep_channels: bool = False) -> Path:
    """A 16-bit WAV of at most ``sample_rate`` in ``folder``, named by content; what is there already stays.

    It is mono as `training.data.audio.load_audio` would make each stretch of it. Where that differs from stretch to
    stretch (channels that cancel each other in a part of the recording), or with ``keep_channels``, because rows name
    one, it holds all channels.

    Raises `UserError` when the disk is full, `training.data.audio.AudioError` for sound that cannot be read.
    """
    stem = folder / file.content_hash[:2] / file.content_hash
    kept, mixed = stem.with_name(f"{stem.name}_channels.wav"), stem.with_name(f"{stem.name}_mono.wav")
    if file.info.channels == 1:
        return _made(stem.with_name(f"{stem.name}.wav"), file, sample_rate, None)
    if kept.is_file() or (mixed.is_file() and not keep_channels):
        return kept if kept.is_file() else mixed
    same, channel = (False, None) if keep_channels else agreed(_stream(file))
    return _made(mixed, file, sample_rate, channel) if same else _made(kept, file, sample_rate, _ALL)


def _made(target: Path, file: File, sample_rate: int, channel: int | None) -> Path:
    """``target``, written unless it is there. ``channel``: which one; None: the mean; `_ALL`: every one."""
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(number)
    part = Path(name)
    try:
        _write(part, file, min(sample_rate, file.info.sample_rate), channel)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _write(part: Path, file: File, rate: int, channel: int | None) -> None:
    import soundfile

    expected = file.info.frames * rate / file.info.sample_rate
    channels = file.info.channels if channel == _ALL else 1
    try:
        with soundfile.SoundFile(part, "w", rate, channels, format="WAV", subtype="PCM_16") as sink:
            for block in _resampled(file, rate, channel):
                sink.write(block)
        with soundfile.SoundFile(part) as written:  # libsndfile does not report every write that failed
            short = written.frames < expected - max(rate // 10, 0.01 * expected)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _cannot_write(part, error) from error
    if short:
        raise _cannot_write(part, "fewer samples than were given")


def _cannot_write(part: Path, why: Any) -> UserError:
    return UserError(f"{part.parent}: converted audio cannot be written ({why}); is the disk full?")


def _stream(file: File) -> Iterator[tuple[np.ndarray, int]]:
    return audio.stream(AudioRef(path=str(file.path)), BLOCK_SECONDS)


def _resampled(file: File, rate: int, channel: int | None) -> Iterator[np.ndarray]:
    """Blocks ``[time, channels]`` at ``rate``."""
    import soxr

    resampler = None
    for block, given in _stream(file):
        chosen = np.ascontiguousarray(block if channel == _ALL else mono(block, channel)[:, None])
        if given == rate:
            yield chosen
            continue
        resampler = resampler or soxr.ResampleStream(
            given, rate, chosen.shape[1], dtype="float32", quality="HQ"
        )
        yield resampler.resample_chunk(chosen)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros((0, chosen.shape[1]), np.float32), last=True)
