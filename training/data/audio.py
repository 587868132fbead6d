"""Decoding: a file, or a stretch of it, becomes float32 mono samples at the rate that is asked for.

Which decoder reads a file is told by its first bytes (`training.data.sound.containers`), never by its name. WAV, FLAC, OGG
and MP3 go through soundfile, which seeks to a stretch without decoding what lies before and after it. Everything
else (M4A, AAC, WebM, video containers) goes through the ffmpeg program where there is one. Nothing here replaces
sound that cannot be read: it raises `AudioError`.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from training.data.example import AudioRef
from training.data.sound import decoded
from training.data.sound.containers import HEAD_BYTES, identify_file, unknown
from training.data.sound.downmix import choose, mono
from training.data.sound.ffmpeg import DEMUXERS, LONGEST_SECONDS, Source, find_ffmpeg
from training.data.sound.info import AudioError, AudioInfo
from training.data.sound.sound_file import open_sound

__all__ = [
    "END_TOLERANCE",
    "SOUNDFILE_CONTAINERS",
    "SOUNDFILE_SUFFIXES",
    "SOUND_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "find_ffmpeg",
    "load_audio",
    "load_bytes",
    "load_with_channel",
    "needs_ffmpeg",
    "probe",
    "probe_bytes",
    "segment_duration",
    "stream",
    "stream_mono",
    "taken_channel",
]

SOUNDFILE_CONTAINERS = frozenset({"wav", "rf64", "w64", "flac", "ogg", "mp3", "aiff", "au", "sphere", "voc"})
"""Those of `training.data.sound.containers.identify` that soundfile reads."""
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}
)
"""How such files are usually named: for finding sound in a folder, not for choosing what decodes it."""
SOUND_SUFFIXES = SOUNDFILE_SUFFIXES | {
    f".{name}"
    for name in (
        *(
            "m4a",
            "m4b",
            "mp4",
            "mov",
            "3gp",
            "aac",
            "webm",
            "mka",
            "mkv",
            "ts",
            "mpg",
            "amr",
            "wma",
            "avi",
            "flv",
        ),
        *("caf", "ac3", "eac3", "wv"),
    )
}
"""The same, with what needs ffmpeg."""
LARGEST_SAMPLE = 2.0**31
"""Samples as whole numbers of 32 bits in a float file are as large. The spectrum of larger ones leaves 32-bit floats."""
END_TOLERANCE = 0.05
"""Seconds by which a stated end may lie behind the file's last sample: tables round their times."""


def load_audio(ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """Samples of ``ref``: float32 ``[time]``, mono, at ``sample_rate``.

    Mono is the channel that ``ref`` names; without one the mean of all, or the loudest one where that mean lies more
    than 20 dB below it, because the channels cancel each other (`training.data.sound.downmix`).

    Raises `AudioError` for a file that is missing, truncated, without samples or of an unknown format, and
    for a stretch or a channel that is not in the file.
    """
    return load_with_channel(ref, sample_rate)[0]


def load_with_channel(ref: AudioRef, sample_rate: int = 16_000) -> tuple[np.ndarray, int | None]:
    """`load_audio`, and the channel that stands for all because their mean would lose it; None otherwise."""
    with _opened(ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)


def load_bytes(data: bytes, ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """`load_audio` for a file that lies in memory (a Parquet cell); ``ref.path`` only names it in messages."""
    with _in_memory(data, ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)[0]


def block_of_bytes(data: bytes, ref: AudioRef) -> tuple[np.ndarray, int]:
    """The stretch of a file that lies in memory as one block of `stream`: float32 ``[time, channels]``, sample rate."""
    with _in_memory(data, ref.path) as (handle, container, key):
        return _whole(handle, container, key, ref)


def stream(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """The same stretch in blocks ``(float32 [time, channels], sample rate)`` as the file has them.

    For files of hours: one block at a time is in memory. Where ``ref`` names a channel the blocks hold that one alone.
    Raises `AudioError` like `load_audio`, for an end that is missing after the last block.
    """
    with _opened(ref.path) as (handle, container, key):
        for samples, rate in _blocks(handle, container, key, ref, block_seconds):
            _require_numbers(samples, ref.path)
            yield samples, rate


def stream_mono(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """`stream` with blocks ``[time]``: made mono as `load_audio` makes the whole stretch, which is decoded twice for it
    where it has several channels and more than one block."""
    channel = taken_channel(ref, block_seconds)
    for block, rate in stream(ref, block_seconds):
        yield mono(block, channel), rate


def taken_channel(ref: AudioRef, block_seconds: float = 10.0) -> int | None:
    """Which channel `load_audio` takes of this stretch because the mean would lose it; None: the mean, or one channel.

    Decodes a file of several channels. Raises `AudioError`.
    """
    if ref.channel is not None or probe(ref.path).channels == 1:
        return None
    return choose(block for block, _ in stream(ref, block_seconds))


def _blocks(
    handle: BinaryIO, container: str, key: Hashable, ref: AudioRef, block_seconds: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    """The stretch in blocks ``[time, channels]``; None: in one."""
    if container in SOUNDFILE_CONTAINERS:
        yield from _soundfile_blocks(handle, container, key, ref, block_seconds)
        return
    source = Source(handle, container, ref.path)
    whole = decoded.decoded(source, key)
    start, stop = _frame_range(ref, whole.frames, whole.sample_rate)
    size = stop - start if block_seconds is None else max(1, round(block_seconds * whole.sample_rate))
    for samples in decoded.blocks(source, whole, start, stop, size):
        yield _selected(samples, ref), whole.sample_rate


def _soundfile_blocks(
    handle: BinaryIO, container: str, key: Hashable, ref: AudioRef, block_seconds: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    with open_sound(handle, container, ref.path, key) as sound:
        rate = sound.sample_rate
        start, stop = _frame_range(ref, sound.frames, rate)
        wanted = missing = stop - start
        if block_seconds is None and wanted > LONGEST_SECONDS * rate:
            raise AudioError(
                ref.path,
                f"{wanted / rate / 3600:.1f} hours of sound are not read at once, at most "
                f"{LONGEST_SECONDS / 3600:g} are: name stretches of it (start and end)",
            )
        block = wanted if block_seconds is None else max(1, round(block_seconds * rate))
        sound.seek(start)
        while len(samples := sound.read(min(block, missing))):
            missing -= len(samples)
            yield _selected(samples, ref), rate
        if missing > sound.uncertain or missing == wanted:
            raise AudioError(
                ref.path,
                f"truncated: {(wanted - missing) / rate:.3f} of {wanted / rate:.3f} s could be read from {ref.start:g} s on",
            )


def probe(path: str | Path) -> AudioInfo:
    """Length and shape of a file: by its header (and its tail, to tell a truncated one) where soundfile reads it.

    What ffmpeg reads is decoded and counted, because the headers of those containers state estimates. Raises
    `AudioError`.
    """
    with _opened(path) as (handle, container, key):
        return _probe(handle, container, key, str(path))


def probe_bytes(data: bytes, name: str) -> AudioInfo:
    """`probe` for a file that lies in memory."""
    with _in_memory(data, name) as (handle, container, key):
        return _probe(handle, container, key, name)


def _probe(handle: BinaryIO, container: str, key: Hashable, name: str) -> AudioInfo:
    if container not in SOUNDFILE_CONTAINERS:
        return decoded.decoded(Source(handle, container, name), key).info
    with open_sound(handle, container, name, key) as sound:
        if sound.frames == 0:
            raise AudioError(name, "holds no samples")
        sound.require_end()
        return sound.info


def _load(
    handle: BinaryIO, container: str, key: Hashable, ref: AudioRef, sample_rate: int
) -> tuple[np.ndarray, int | None]:
    samples, rate = _whole(handle, container, key, ref)
    return _finish(samples, rate, ref, sample_rate)


def _whole(handle: BinaryIO, container: str, key: Hashable, ref: AudioRef) -> tuple[np.ndarray, int]:
    try:
        blocks = list(_blocks(handle, container, key, ref, None))
        samples = blocks[0][0] if len(blocks) == 1 else np.concatenate([block for block, _ in blocks])
    except MemoryError as error:
        raise AudioError(
            ref.path, "its sound is too long for the memory: name stretches of it (start and end)"
        ) from error
    _require_numbers(samples, ref.path)
    return samples, blocks[0][1]


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, str, Hashable]]:
    """The file, its container, and a key of its content as far as the file system knows it."""
    path = Path(path)
    _require_file(path)
    with path.open("rb") as handle:
        status = os.fstat(handle.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        yield handle, _container(handle, path), key


@contextmanager
def _in_memory(data: bytes, name: str) -> Iterator[tuple[BinaryIO, str, Hashable]]:
    """The same of bytes. ffmpeg is given an unnamed file: it must jump in an M4A, which it cannot in a pipe."""
    container = _container(io.BytesIO(data), name)
    if container in SOUNDFILE_CONTAINERS:
        yield io.BytesIO(data), container, None
        return
    with tempfile.TemporaryFile(prefix="polyvox-sound-") as handle:
        handle.write(data)
        handle.flush()
        yield handle, container, hashlib.sha256(data).digest()


def _container(handle: BinaryIO, name: str | Path) -> str:
    container = identify_file(handle)
    if container in SOUNDFILE_CONTAINERS or container in DEMUXERS:
        return str(container)
    head = handle.read(HEAD_BYTES)
    raise AudioError(name, f"cannot be decoded: {unknown(head)}")


def needs_ffmpeg(path: str | Path) -> bool:
    """Whether a file is decoded by ffmpeg, as its first bytes say. Raises `AudioError` where nothing decodes it."""
    with _opened(path) as (_, container, _):
        return container not in SOUNDFILE_CONTAINERS


def segment_duration(ref: AudioRef, info: AudioInfo) -> float:
    """Seconds of the stretch that ``ref`` names in a file of ``info``. Raises `AudioError` where it, or the channel
    that ``ref`` names, is not in it."""
    _require_channel(ref, info.channels)
    start, stop = _frame_range(ref, info.frames, info.sample_rate)
    return (stop - start) / info.sample_rate


def _require_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(path, "no such file") from None
    except (
        OSError,
        ValueError,
    ) as error:  # a name that is too long, or holds a zero; links that go in a circle
        raise AudioError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(path, "is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "is a pipe, a socket or a device, not a file: store its sound in a file first")
    if status.st_size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")


def _frame_range(ref: AudioRef, frames: int, rate: int) -> tuple[int, int]:
    """First and last-plus-one frame of the stretch; `AudioError` unless it holds a sample and lies in the file."""
    length = frames / rate
    end = length if ref.end is None else ref.end
    if not (math.isfinite(ref.start) and math.isfinite(end)) or ref.start < 0 or end <= ref.start:
        if frames == 0:
            raise AudioError(ref.path, "holds no samples")
        raise AudioError(ref.path, f"no stretch of sound: start {ref.start:g} s, end {end:g} s")
    if end > length + END_TOLERANCE or ref.start >= length:
        raise AudioError(ref.path, f"{ref.start:g}–{end:g} s is past the end of the file ({length:.3f} s)")
    start, stop = round(ref.start * rate), min(frames, round(end * rate))
    if stop <= start:
        raise AudioError(ref.path, f"no sample between {ref.start:g} s and {end:g} s")
    return start, stop


class NanSamples(AudioError):
    """Some of its samples are NaN."""


class InfiniteSamples(AudioError):
    """Some of its samples are infinite, or too large for the 32 bits that they are computed in."""


def _require_numbers(samples: np.ndarray, name: str) -> None:
    peak = float(np.abs(samples).max(initial=0.0))
    if peak <= LARGEST_SAMPLE:
        return
    if math.isfinite(peak):
        raise InfiniteSamples(
            name,
            f"holds samples of {peak:.3g}, full scale is 1: too large to be computed with, the file is damaged",
        )
    kind, what = (NanSamples, "NaN") if math.isnan(peak) else (InfiniteSamples, "infinite")
    raise kind(name, f"holds samples that are no numbers ({what})")


def _finish(samples: np.ndarray, rate: int, ref: AudioRef, sample_rate: int) -> tuple[np.ndarray, int | None]:
    """Mono at ``sample_rate`` of ``[time, channels]``, and the channel that was taken (None: the mean)."""
    channel = choose([samples])
    samples = mono(samples, channel)
    if rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples, dtype=np.float32), channel


def _selected(samples: np.ndarray, ref: AudioRef) -> np.ndarray:
    """The channel that ``ref`` names, as ``[time, 1]``; all of them where it names none."""
    if ref.channel is None:
        return samples
    _require_channel(ref, samples.shape[1])
    return samples[:, ref.channel : ref.channel + 1]


def _require_channel(ref: AudioRef, channels: int) -> None:
    if ref.channel is not None and not 0 <= ref.channel < channels:
        raise AudioError(ref.path, f"channel {ref.channel} is asked for (counted from 0), it has {channels}")
