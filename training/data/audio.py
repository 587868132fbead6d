"""Decodes an audio file, or a stretch of it, into float32 mono samples at a given sample rate.

The first bytes of a file choose its decoder (`training.data.sound.containers`), never its name. soundfile reads WAV, FLAC,
OGG and MP3; it seeks to a stretch without decoding the rest. The ffmpeg program, where it is installed, reads all other
formats (M4A, AAC, WebM, video containers). Audio that cannot be read raises `AudioError`; it is never replaced.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from training.data.example import AudioRef
from training.data.sound import decoded
from training.data.sound.containers import HEAD_BYTES, identify_file, unknown
from training.data.sound.downmix import choose, mono
from training.data.sound.ffmpeg import DEMUXERS, LONGEST_SECONDS, Source, decode, find_ffmpeg
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
    "load_in_order",
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
"""Containers of `training.data.sound.containers.identify` that soundfile reads."""
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}
)
"""Usual suffixes of such files: to find audio in a folder, not to choose the decoder."""
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
"""The same, with the suffixes of formats that need ffmpeg."""
LARGEST_SAMPLE = 2.0**31
"""The largest absolute sample: that of 32-bit integers stored as floats. The spectrum of larger ones overflows float32."""
END_TOLERANCE = 0.05
"""Seconds by which a stated end may be after the last sample of the file, because tables round their times."""


def load_audio(ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """Decode a stretch of a file.

    The result is the channel that ``ref`` names. Without one it is the mean of all channels, or the loudest channel
    where the mean is more than 20 dB below it, because the channels cancel each other (`training.data.sound.downmix`).

    Args:
        ref: the file, the stretch in seconds and the channel.
        sample_rate: of the result, in Hz.

    Returns:
        Samples float32 ``[time]``, mono, at ``sample_rate``.

    Raises:
        AudioError: the file is missing, truncated, without samples or of an unknown format, or the stretch or the
            channel is not in it.
    """
    return load_with_channel(ref, sample_rate)[0]


def load_with_channel(ref: AudioRef, sample_rate: int = 16_000) -> tuple[np.ndarray, int | None]:
    """As `load_audio`; also returns the channel that was used because the channels cancel each other, else None."""
    with _opened(ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)


def load_in_order(
    refs: Sequence[AudioRef], sample_rate: int = 16_000
) -> Iterator[tuple[np.ndarray, int | None]]:
    """As `load_with_channel` for stretches of one file, each beginning no earlier than the one before it.

    A file that only ffmpeg reads, and whose sound is too long to be kept, is decoded once for all of them.
    """
    if not refs:
        return
    with _opened(refs[0].path) as (handle, container, key):
        if container not in SOUNDFILE_CONTAINERS:
            source = Source(handle, container, refs[0].path)
            whole = decoded.decoded(source, key)
            if whole.samples is None:
                yield from _passing(source, whole, refs, sample_rate)
                return
        for ref in refs:
            yield _load(handle, container, key, ref, sample_rate)


def _passing(
    source: Source, whole: decoded.Decoded, refs: Sequence[AudioRef], sample_rate: int
) -> Iterator[tuple[np.ndarray, int | None]]:
    """The stretches, cut out while the file's sound passes by."""
    blocks = decode(source)
    kept, first = np.zeros((0, whole.channels), np.float32), 0
    for ref in refs:
        start, stop = _frame_range(ref, whole.frames, whole.sample_rate)
        kept, first = _from(start, kept, first)
        while first + len(kept) < stop:
            block, _ = next(blocks)
            kept, first = _from(start, np.concatenate((kept, block)), first)
        samples = _selected(kept[start - first : stop - first], ref)
        _require_numbers(samples, ref.path)
        yield _finish(samples, whole.sample_rate, ref, sample_rate)


def _from(start: int, kept: np.ndarray, first: int) -> tuple[np.ndarray, int]:
    """Frames from ``start`` on, of ``kept`` that begins with frame ``first``, and the number of the first of them."""
    gone = min(max(0, start - first), len(kept))
    return kept[gone:], first + gone


def load_bytes(data: bytes, ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """As `load_audio` for a file in memory (a Parquet cell); ``ref.path`` only names it in messages."""
    with _in_memory(data, ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)[0]


def block_of_bytes(data: bytes, ref: AudioRef) -> tuple[np.ndarray, int]:
    """The stretch of a file in memory as one block of `stream`: float32 ``[time, channels]`` and the sample rate in Hz."""
    with _in_memory(data, ref.path) as (handle, container, key):
        return _whole(handle, container, key, ref)


def stream(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """Decode a stretch of a file block by block, so that long files need little memory.

    Args:
        ref: the file, the stretch in seconds and the channel.
        block_seconds: length of a block.

    Yields:
        Samples float32 ``[time, channels]`` at the sample rate of the file, and that rate in Hz. With a channel in
        ``ref`` the blocks have that channel only.

    Raises:
        AudioError: as for `load_audio`; a truncated file raises it after its last block.
    """
    with _opened(ref.path) as (handle, container, key):
        for samples, rate in _blocks(handle, container, key, ref, block_seconds):
            _require_numbers(samples, ref.path)
            yield samples, rate


def stream_mono(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """As `stream`, with mono blocks float32 ``[time]``, mixed as `load_audio` mixes the whole stretch.

    A file of several channels is decoded twice: once to choose the channel.
    """
    channel = taken_channel(ref, block_seconds)
    for block, rate in stream(ref, block_seconds):
        yield mono(block, channel), rate


def taken_channel(ref: AudioRef, block_seconds: float = 10.0) -> int | None:
    """The channel that `load_audio` uses because the channels cancel each other; None: it uses the mean, or ``ref.channel``.

    Decodes the stretch where it has several channels. Raises `AudioError`.
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
    """Duration, sample rate and channels of a file.

    For files that soundfile reads they come from the header, and the end of the file shows whether it is truncated.
    Files that need ffmpeg are decoded, because the headers of those containers hold estimates. Raises `AudioError`.
    """
    with _opened(path) as (handle, container, key):
        return _probe(handle, container, key, str(path))


def probe_bytes(data: bytes, name: str) -> AudioInfo:
    """As `probe` for a file in memory; ``name`` names it in messages."""
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
    """The open file, its container, and a key that changes with its content (size and times of the file system)."""
    path = Path(path)
    _require_file(path)
    with path.open("rb") as handle:
        status = os.fstat(handle.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        yield handle, _container(handle, path), key


@contextmanager
def _in_memory(data: bytes, name: str) -> Iterator[tuple[BinaryIO, str, Hashable]]:
    """As `_opened` for bytes. ffmpeg gets an unnamed file, because it must seek in an M4A."""
    container = _container(io.BytesIO(data), name)
    if container in SOUNDFILE_CONTAINERS:
        yield io.BytesIO(data), container, None
        return
    # Without a buffer: ffmpeg shares the place in the file and moves it, and a buffer that is closed would seek from there.
    with tempfile.TemporaryFile(prefix="polyvox-sound-", buffering=0) as handle:
        left = memoryview(data)
        while left:
            left = left[handle.write(left) :]
        yield handle, container, hashlib.sha256(data).digest()  # type: ignore[misc]


def _container(handle: BinaryIO, name: str | Path) -> str:
    container = identify_file(handle)
    if container in SOUNDFILE_CONTAINERS or container in DEMUXERS:
        return str(container)
    head = handle.read(HEAD_BYTES)
    raise AudioError(name, f"cannot be decoded: {unknown(head)}")


def needs_ffmpeg(path: str | Path) -> bool:
    """Whether ffmpeg decodes a file, by its first bytes. Raises `AudioError` for an unknown format."""
    with _opened(path) as (_, container, _):
        return container not in SOUNDFILE_CONTAINERS


def segment_duration(ref: AudioRef, info: AudioInfo) -> float:
    """Seconds of the stretch ``ref`` in a file of ``info``. Raises `AudioError` where the stretch or the channel is not in
    it."""
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
    """Some samples of the file are NaN."""


class InfiniteSamples(AudioError):
    """Some samples of the file are infinite, or too large for float32 arithmetic."""


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
    """Mono at ``sample_rate`` from ``[time, channels]``, and the channel that was used (None: the mean)."""
    channel = choose([samples])
    samples = mono(samples, channel)
    if rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples, dtype=np.float32), channel


def _selected(samples: np.ndarray, ref: AudioRef) -> np.ndarray:
    """The channel that ``ref`` names, ``[time, 1]``; all channels where it names none."""
    if ref.channel is None:
        return samples
    _require_channel(ref, samples.shape[1])
    return samples[:, ref.channel : ref.channel + 1]


def _require_channel(ref: AudioRef, channels: int) -> None:
    if ref.channel is not None and not 0 <= ref.channel < channels:
        raise AudioError(ref.path, f"channel {ref.channel} is asked for (counted from 0), it has {channels}")
