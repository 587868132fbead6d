"""Decoding: a file, or a stretch of it, becomes float32 mono samples at the rate that is asked for.

WAV, FLAC, OGG and MP3 go through soundfile, which seeks to a stretch without decoding what lies before and
after it. Everything else (M4A, AAC, WebM, video containers) goes through the ffmpeg program where there is
one. Nothing here replaces sound that cannot be read: it raises `AudioError`.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from training.data.example import AudioRef
from training.data.truncation import missing_end, missing_wav_bytes

if TYPE_CHECKING:
    import soundfile

SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}
)
END_TOLERANCE = 0.05
"""Seconds by which a stated end may lie behind the file's last sample: tables round their times."""

_FFMPEG_TIMEOUT = 600
_FFMPEG_LEAD = 0.5
_MP3_LEAD = 1
"""Seconds decoded before a stretch of an MP3 and thrown away: its frames borrow bits from those before them, and
libsndfile gives silence for the ones right after a jump."""


class AudioError(ValueError):
    """A sound that cannot be had as asked: which file, and why."""

    def __init__(self, path: str | Path, reason: str = "") -> None:
        # One argument alone is a finished message: that is how an exception comes back from a worker.
        super().__init__(f"{path}: {reason}" if reason else str(path))


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a header says: ``duration`` in seconds, ``frames`` in samples per channel."""

    duration: float
    sample_rate: int
    channels: int
    frames: int


def load_audio(ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """Samples of ``ref``: float32 ``[time]``, mono (the mean of the channels), at ``sample_rate``.

    Raises `AudioError` for a file that is missing, truncated, without samples or of an unknown format, and
    for a stretch that does not lie in the file.
    """
    path = Path(ref.path)
    _require_file(path)
    if path.suffix.lower() in SOUNDFILE_SUFFIXES:
        with path.open("rb") as handle:
            return _load_soundfile(handle, str(path), ref, sample_rate)
    return _load_ffmpeg(path, ref, sample_rate)


def load_bytes(data: bytes, ref: AudioRef, sample_rate: int = 16_000) -> np.ndarray:
    """`load_audio` for a file that lies in memory (a Parquet cell); ``ref.path`` only names it in messages."""
    if _is_mp4(data):
        with _as_file(data, ref.path) as path:
            return _load_ffmpeg(path, ref, sample_rate)
    return _load_soundfile(io.BytesIO(data), ref.path, ref, sample_rate)


def block_of_bytes(data: bytes, ref: AudioRef) -> tuple[np.ndarray, int]:
    """`load_bytes` at the sound's own rate: float32 ``[time, 1]`` and that rate."""
    rate = probe_bytes(data, ref.path).sample_rate
    return load_bytes(data, ref, rate)[:, None], rate


def stream(ref: AudioRef, block_seconds: float = 10.0) -> Iterator[tuple[np.ndarray, int]]:
    """The same stretch in blocks ``(float32 [time, channels], sample rate)`` as the file has them.

    For files of hours: one block at a time is in memory (formats that ffmpeg decodes come in one, as mono).
    Raises `AudioError` like `load_audio`, for an end that is missing after the last block.
    """
    path = Path(ref.path)
    _require_file(path)
    if path.suffix.lower() not in SOUNDFILE_SUFFIXES:
        rate = _probe_ffmpeg(path).sample_rate
        yield _load_ffmpeg(path, ref, rate)[:, None], rate
        return
    with path.open("rb") as handle, _open_soundfile(handle, str(path)) as sound:
        start, stop = _frame_range(ref, sound.frames, sound.samplerate)
        missing, block = stop - start, max(1, round(block_seconds * sound.samplerate))
        samples = _read_first(sound, start, min(block, missing), str(path))
        while len(samples):
            _require_numbers(samples, str(path))
            missing -= len(samples)
            yield samples, sound.samplerate
            samples = _read(sound, min(block, missing), str(path))
        if missing > _uncertain_frames(sound) or missing == stop - start:
            raise AudioError(path, f"truncated: {missing} of {stop - start} samples could not be read")


def probe(path: str | Path) -> AudioInfo:
    """Length and shape of a file from its header (and its tail, to tell a truncated one). Raises `AudioError`."""
    path = Path(path)
    _require_file(path)
    if path.suffix.lower() in SOUNDFILE_SUFFIXES:
        with path.open("rb") as handle:
            return _probe_soundfile(handle, str(path))
    return _probe_ffmpeg(path)


def probe_bytes(data: bytes, name: str) -> AudioInfo:
    """`probe` for a file that lies in memory."""
    if _is_mp4(data):
        with _as_file(data, name) as path:
            return _probe_ffmpeg(path)
    return _probe_soundfile(io.BytesIO(data), name)


def _is_mp4(data: bytes) -> bool:
    """Whether the bytes are an MPEG-4 container (M4A): its first box says so, whatever the sound is called."""
    return data[4:8] == b"ftyp"


@contextmanager
def _as_file(data: bytes, name: str) -> Iterator[Path]:
    """The bytes as a file for ffmpeg, which must jump in an M4A; errors speak of ``name``."""
    with tempfile.TemporaryDirectory(prefix="polyvox-sound-") as folder:
        path = Path(folder, "sound.m4a")
        path.write_bytes(data)
        try:
            yield path
        except AudioError as error:
            raise type(error)(name, str(error).removeprefix(f"{path}: ")) from error


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


class NanSamples(AudioError):
    """Some of its samples are NaN."""


class InfiniteSamples(AudioError):
    """Some of its samples are infinite, or too large for the 32 bits that they are computed in."""


def _require_numbers(samples: np.ndarray, name: str) -> None:
    if np.isfinite(samples).all():
        return
    kind, what = (NanSamples, "NaN") if np.isnan(samples).any() else (InfiniteSamples, "infinite")
    raise kind(name, f"holds samples that are no numbers ({what})")


def _finish(samples: np.ndarray, rate: int, sample_rate: int, name: str) -> np.ndarray:
    _require_numbers(samples, name)
    if rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples, dtype=np.float32)


def find_ffmpeg() -> str | None:
    """The ffmpeg program: on the PATH, or the one that the package ``imageio-ffmpeg`` brings, else None."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _ffmpeg(path: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    program = find_ffmpeg()
    if program is None:
        raise AudioError(
            path,
            f"{path.suffix or 'this format'} needs ffmpeg, which is not installed: install it (apt-get install ffmpeg, "
            "brew install ffmpeg, or pip install imageio-ffmpeg), or convert the file to WAV, FLAC, OGG or MP3",
        )
    command = [program, "-nostdin", "-hide_banner", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=_FFMPEG_TIMEOUT, check=False)
    if check and done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AudioError(path, f"ffmpeg cannot decode it: {lines[-1] if lines else 'no reason given'}")
    return done


def _probe_ffmpeg(path: Path) -> AudioInfo:
    """Read what ffmpeg prints of the container. It ends with status 1 (no output asked for): that is expected."""
    text = _ffmpeg(path, "-i", str(path), check=False).stderr.decode("utf-8", "replace")
    length = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", text)
    stream = re.search(r"Audio: .*?, (\d+) Hz, ([^,\n]+)", text)
    if length is None or stream is None:
        lines = text.strip().splitlines()
        raise AudioError(path, f"ffmpeg finds no sound in it: {lines[-1] if lines else 'no reason given'}")
    seconds = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
    rate = int(stream[1])
    counted = re.match(r"(\d+) channels", stream[2])
    channels = (
        int(counted[1])
        if counted
        else {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}.get(stream[2].split("(")[0], 2)
    )
    if seconds == 0:
        raise AudioError(path, "holds no samples")
    return AudioInfo(seconds, rate, channels, round(seconds * rate))


def _load_ffmpeg(path: Path, ref: AudioRef, sample_rate: int) -> np.ndarray:
    """At the file's own rate, then resampled as all other formats."""
    import soundfile

    info = _probe_ffmpeg(path)
    start, stop = _frame_range(ref, info.frames, info.sample_rate)
    arguments = ["-v", "error", "-xerror", "-i", str(path)]
    if (
        start or ref.end is not None
    ):  # a jump lands beside its mark; the filter cuts at the file's own time stamps
        begin, end = start / info.sample_rate, stop / info.sample_rate
        jump = ["-ss", f"{max(0.0, begin - _FFMPEG_LEAD):.6f}", "-copyts"]
        arguments = [*arguments[:3], *jump, *arguments[3:], "-af", f"atrim=start={begin:.6f}:end={end:.6f}"]
    # As a WAV of all channels: ffmpeg's own mono is louder than the mean by up to 3 dB.
    output = ["-vn", "-ar", str(info.sample_rate), "-c:a", "pcm_f32le", "-f", "wav", "-"]
    decoded = _ffmpeg(path, *arguments, *output).stdout
    try:
        samples, _ = soundfile.read(io.BytesIO(decoded), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"ffmpeg gives no sound for it: {_reason(error)}") from error
    # Containers state their length to a frame or so of the codec: 0.1 s covers AAC's encoder delay.
    if len(samples) < max(1, stop - start - info.sample_rate // 10):
        raise AudioError(path, f"truncated: {len(samples)} of {stop - start} samples could be read")
    return _finish(samples.mean(axis=1), info.sample_rate, sample_rate, str(path))
