"""Decoding: a file, or a stretch of it, becomes float32 mono samples at the rate that is asked for.

Which decoder reads a file is told by its first bytes (`training.data.containers`), never by its name. WAV, FLAC, OGG
and MP3 go through soundfile, which seeks to a stretch without decoding what lies before and after it. Everything
else (M4A, AAC, WebM, video containers) goes through the ffmpeg program where there is one. Nothing here replaces
sound that cannot be read: it raises `AudioError`.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from training.data import decoded
from training.data.audio_info import AudioError, AudioInfo
from training.data.containers import HEAD_BYTES, identify_file, unknown
from training.data.example import AudioRef
from training.data.ffmpeg import DEMUXERS, Source, find_ffmpeg
from training.data.truncation import missing_end, missing_wav_bytes

if TYPE_CHECKING:
    import soundfile

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
    "needs_ffmpeg",
    "probe",
    "probe_bytes",
    "segment_duration",
    "stream",
]

SOUNDFILE_CONTAINERS = frozenset({"wav", "rf64", "w64", "flac", "ogg", "mp3", "aiff", "au", "sphere", "voc"})
"""Those of `training.data.containers.identify` that soundfile reads."""
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}
)
"""How such files are usually named: for finding sound in a folder, not for choosing what decodes it."""
SOUND_SUFFIXES = SOUNDFILE_SUFFIXES | {
    *(
        ".m4a",
        ".mp4",
        ".m4b",
        ".mov",
        ".3gp",
        ".aac",
        ".webm",
        ".mka",
        ".mkv",
        ".ts",
        ".amr",
        ".wma",
        ".caf",
        ".ac3",
    ),
    *(".avi", ".flv", ".mpg", ".ape", ".wv", ".tta"),
}
"""The same, with what needs ffmpeg."""
END_TOLERANCE = 0.05
"""Seconds by which a stated end may lie behind the file's last sample: tables round their times."""

_MP3_LEAD = 1
"""Seconds decoded before a stretch of an MP3 and thrown away: its frames borrow bits from those before them, and
libsndfile gives silence for the ones right after a jump."""


def load_audio(ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """Samples of ``ref``: float32 ``[time]``, mono (the mean of the channels), at ``sample_rate``.

    Raises `AudioError` for a file that is missing, truncated, without samples or of an unknown format, and
    for a stretch that does not lie in the file.
    """
    with _opened(ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)


def load_bytes(data: bytes, ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """`load_audio` for a file that lies in memory (a Parquet cell); ``ref.path`` only names it in messages."""
    with _in_memory(data, ref.path) as (handle, container, key):
        return _load(handle, container, key, ref, sample_rate)


def stream(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """The same stretch in blocks ``(float32 [time, channels], sample rate)`` as the file has them.

    For files of hours: one block at a time is in memory. Raises `AudioError` like `load_audio`, for an end that is
    missing after the last block.
    """
    with _opened(ref.path) as (handle, container, key):
        if container in SOUNDFILE_CONTAINERS:
            yield from _stream_soundfile(handle, ref, block_seconds)
            return
        source = Source(handle, container, ref.path)
        whole = decoded.decoded(source, key)
        start, stop = _frame_range(ref, whole.frames, whole.sample_rate)
        size = max(1, round(block_seconds * whole.sample_rate))
        for samples in decoded.blocks(source, whole, start, stop, size):
            _require_numbers(samples, ref.path)
            yield samples, whole.sample_rate


def _stream_soundfile(
    handle: BinaryIO, ref: AudioRef, block_seconds: float
) -> Iterator[tuple[np.ndarray, int]]:
    path = ref.path
    with _open_soundfile(handle, path) as sound:
        start, stop = _frame_range(ref, sound.frames, sound.samplerate)
        missing, block = stop - start, max(1, round(block_seconds * sound.samplerate))
        samples = _read_first(sound, start, min(block, missing), path)
        while len(samples):
            _require_numbers(samples, path)
            missing -= len(samples)
            yield samples, sound.samplerate
            samples = _read(sound, min(block, missing), path)
        if missing > _uncertain_frames(sound) or missing == stop - start:
            raise AudioError(path, f"truncated: {missing} of {stop - start} samples could not be read")


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
    if container in SOUNDFILE_CONTAINERS:
        return _probe_soundfile(handle, name)
    return decoded.decoded(Source(handle, container, name), key).info


def _load(handle: BinaryIO, container: str, key: Hashable, ref: AudioRef, sample_rate: int) -> np.ndarray:
    if container in SOUNDFILE_CONTAINERS:
        return _load_soundfile(handle, ref.path, ref, sample_rate)
    source = Source(handle, container, ref.path)
    whole = decoded.decoded(source, key)
    start, stop = _frame_range(ref, whole.frames, whole.sample_rate)
    samples = np.concatenate(list(decoded.blocks(source, whole, start, stop, stop - start)))
    return _finish(samples.mean(axis=1), whole.sample_rate, sample_rate, ref.path)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, str, Hashable]]:
    """The file, its container, and a key of its content as far as the file system knows it."""
    path = Path(path)
    _require_file(path)
    with path.open("rb") as handle:
        stat = os.fstat(handle.fileno())
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
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
    """Seconds of the stretch that ``ref`` names in a file of ``info``. Raises `AudioError` where it is not in it."""
    start, stop = _frame_range(ref, info.frames, info.sample_rate)
    return (stop - start) / info.sample_rate


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise AudioError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    if path.stat().st_size == 0:
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


def _open_soundfile(handle: BinaryIO, name: str) -> soundfile.SoundFile:
    import soundfile

    missing = missing_end(handle)
    if missing is None:
        try:
            sound = soundfile.SoundFile(handle)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise AudioError(name, f"cannot be decoded: {_reason(error)}") from error
        missing = missing_wav_bytes(sound.extra_info)
    if missing is not None:
        raise AudioError(name, f"truncated: {missing}")
    return sound


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")


def _load_soundfile(handle: BinaryIO, name: str, ref: AudioRef, sample_rate: int) -> np.ndarray:
    with _open_soundfile(handle, name) as sound:
        start, stop = _frame_range(ref, sound.frames, sound.samplerate)
        samples = _read_first(sound, start, stop - start, name)
        if len(samples) < max(1, stop - start - _uncertain_frames(sound)):
            raise AudioError(
                name,
                f"truncated: {len(samples)} of {stop - start} samples could be read from {ref.start:g} s on",
            )
        rate = sound.samplerate
    return _finish(samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0], rate, sample_rate, name)


def _read_first(sound: soundfile.SoundFile, start: int, frames: int, name: str) -> np.ndarray:
    """``frames`` from ``start`` on; in an MP3 by way of the frames before them, in one call."""
    import soundfile

    lead = min(start, _MP3_LEAD * sound.samplerate) if sound.format == "MP3" else 0
    if start:
        try:
            sound.seek(start - lead)
        except soundfile.LibsndfileError as error:
            raise AudioError(name, f"cannot be decoded: {_reason(error)}") from error
    return _read(sound, frames + lead, name)[lead:]


def _read(sound: soundfile.SoundFile, frames: int, name: str) -> np.ndarray:
    import soundfile

    try:
        return sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(name, f"cannot be decoded: {_reason(error)}") from error


def _uncertain_frames(sound: soundfile.SoundFile) -> int:
    """By how much a header may overstate the length: an MP3 without a Xing or Info frame has it estimated."""
    return round(0.01 * sound.frames + 0.1 * sound.samplerate) if sound.format == "MP3" else 0


def _probe_soundfile(handle: BinaryIO, name: str) -> AudioInfo:
    with _open_soundfile(handle, name) as sound:
        if sound.frames == 0:
            raise AudioError(name, "holds no samples")
        if sound.format == "FLAC":
            _require_last_sample(sound, name)
        return AudioInfo(sound.frames / sound.samplerate, sound.samplerate, sound.channels, sound.frames)


def _require_last_sample(sound: soundfile.SoundFile, name: str) -> None:
    """A FLAC file tells nowhere that its end is missing: look whether the last sample can be decoded."""
    import soundfile

    try:
        sound.seek(sound.frames - 1)
        found = len(sound.read(1, dtype="float32"))
    except soundfile.LibsndfileError:
        found = 0
    if not found:
        raise AudioError(name, f"truncated: the last of its {sound.frames} samples cannot be decoded")


def _require_numbers(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(name, "holds samples that are no numbers (NaN or infinite)")


def _finish(samples: np.ndarray, rate: int, sample_rate: int, name: str) -> np.ndarray:
    _require_numbers(samples, name)
    if rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples, dtype=np.float32)
