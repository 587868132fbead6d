"""The ffmpeg program, kept to one file: sound in containers that soundfile does not read.

ffmpeg by itself opens whatever a file's bytes ask for: a playlist or a script that is named ``.m4a`` makes it read
other files and call addresses. So it is never left to choose. Its demuxer is forced from our own look at the bytes
(`training.data.sound.containers`) and is the only one that it may use; the file reaches it as an open descriptor, and
no other protocol is allowed. What it gives is counted while it comes: a header's duration is an estimate only, and
the first sample of the sound is time zero, whatever time stamp it bears.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from training.data.sound.info import AudioError

DEMUXERS = {
    "mov": "mov",
    "matroska": "matroska",
    "mpegts": "mpegts",
    "mpeg": "mpeg",
    "adts": "aac",
    "amr": "amr",
    "asf": "asf",
    "avi": "avi",
    "flv": "flv",
    "caf": "caf",
    "ac3": "ac3",
    "eac3": "eac3",
    "wavpack": "wv",
    "ogg_other": "ogg",
    "bw64": "wav",
}
"""What `training.data.sound.containers.identify` says, and the demuxer for it. None of them opens other files, as those for
playlists, scripts and session descriptions do (hls, concat, sdp, dash, imf); ``mov`` may, and is told not to."""

LONGEST_SECONDS = 24 * 3600.0
"""Seconds of sound that are decoded of one file: twice the longest recordings that are usual (10 hours)."""
LARGEST_BYTES = 64 * 2**30
"""Bytes of decoded sound (32-bit floats): a day of 48 kHz stereo is half of it. A small file can state 192 kHz in
64 channels."""
STALL_SECONDS = 120.0
"""Seconds within which the next `_BLOCK_BYTES` of sound must come: 22 s of 48 kHz stereo, which every machine
decodes within one. A file that takes longer keeps the decoder busy without end."""

_BLOCK_BYTES = 4 * 2**20
_MESSAGE_BYTES = 65_536
_CONTEXT = re.compile(r"^(\[[^\]]*\] *)+")
_READING = {
    "mov": ("-enable_drefs", "0", "-use_absolute_path", "0"),
    # A broadcast may bear sound only seconds after its picture: look through more of it than ffmpeg does by itself.
    "mpegts": ("-probesize", "64M", "-analyzeduration", "60M"),
    "mpeg": ("-probesize", "64M", "-analyzeduration", "60M"),
}


@dataclass(frozen=True)
class Source:
    """An open file for ffmpeg: a real descriptor, its ``container`` by `identify`, its ``name`` for messages."""

    handle: BinaryIO
    container: str
    name: str


@dataclass(frozen=True)
class Shape:
    """Sample rate in Hz and number of channels of decoded audio."""

    rate: int
    channels: int


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


def decode(source: Source) -> Iterator[tuple[np.ndarray, int]]:
    """All sound of a file from its first sample on, in blocks ``(float32 [time, channels], sample rate)``.

    The first sound track of several, at its own rate. Raises `training.data.sound.info.AudioError` without ffmpeg,
    for what ffmpeg cannot decode, and beyond `LONGEST_SECONDS`, `LARGEST_BYTES` and `STALL_SECONDS`.
    """
    process = _started(source)
    assert process.stdout is not None and process.stderr is not None
    messages = _Messages(process.stderr)
    try:
        shape = _shape(process, source)
        if shape is not None:
            for block in _blocks(process, source, shape):
                yield block, shape.rate
        _require_whole(source, process.wait(STALL_SECONDS), messages.text())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        messages.text()


def _started(source: Source) -> subprocess.Popen[bytes]:
    program = find_ffmpeg()
    if program is None:
        suffix = Path(source.name).suffix or source.container
        raise AudioError(
            source.name,
            f"{suffix} needs ffmpeg, which is not installed: install it (apt-get install ffmpeg, "
            "brew install ffmpeg, or pip install imageio-ffmpeg), or convert the file to WAV, FLAC, OGG or MP3",
        )
    source.handle.seek(0)
    os.lseek(source.handle.fileno(), 0, os.SEEK_SET)
    return subprocess.Popen(
        _command(program, DEMUXERS[source.container], _address(program, source)),
        stdin=source.handle,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _command(program: str, demuxer: str, address: tuple[str, str]) -> list[str]:
    protocol, url = address
    return [
        *(program, "-nostdin", "-hide_banner", "-v", "error", "-xerror"),
        *("-protocol_whitelist", protocol, "-format_whitelist", demuxer, "-f", demuxer),
        *_READING.get(demuxer, ()),
        *("-i", url, "-map", "0:a:0", "-vn", "-sn", "-dn"),
        # As a WAV of all channels: ffmpeg's own mono is louder than the mean by up to 3 dB.
        *(
            "-map_metadata",
            "-1",
            "-af",
            "asetpts=N/SR/TB",
            "-c:a",
            "pcm_f32le",
            "-fflags",
            "+bitexact",
            "-f",
            "wav",
            "pipe:1",
        ),
    ]


def _address(program: str, source: Source) -> tuple[str, str]:
    """Protocol and address of the descriptor (standard input). A pipe would not do: the index may lie at the end."""
    if _knows_fd(program):
        return "fd", "fd:"
    if os.name == "posix":
        return "file", "file:/dev/fd/0"
    return "file", f"file:{source.handle.name}"


@functools.lru_cache(maxsize=4)
def _knows_fd(program: str) -> bool:
    """Whether this ffmpeg has the protocol for descriptors (since 6.0)."""
    done = subprocess.run(
        [program, "-v", "error", "-nostdin", "-protocols"],
        capture_output=True,
        timeout=STALL_SECONDS,
        check=False,
    )
    return b"fd" in done.stdout.split(b"Output:")[0].split()


class _Messages:
    """ffmpeg's messages, read in parallel with its audio so that neither blocks the other; at most a page is kept."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._kept = b""
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while part := self._pipe.read1(4096):  # type: ignore[attr-defined]
                self._kept = (self._kept + part)[:_MESSAGE_BYTES]
        self._pipe.close()

    def text(self) -> str:
        """All of it, when the process has ended."""
        self._thread.join(STALL_SECONDS)
        return self._kept.decode("utf-8", "replace").strip()


def _require_whole(source: Source, status: int, stderr: str) -> None:
    """`AudioError` for what ffmpeg failed at, and for what it passed over: ends that are missing, damaged parts."""
    if status != 0:
        raise AudioError(source.name, f"ffmpeg cannot decode it: {_reason(stderr)}")
    demuxer = DEMUXERS[source.container]
    passed = [line for line in stderr.splitlines() if _is_of_the_file(line, demuxer)]
    if any("unknown-length element with ID 0x1" in line for line in passed):
        raise AudioError(
            source.name, "a second file begins within it, and only the first could be read: part them"
        )
    if any("ended prematurely" in line for line in passed):
        raise AudioError(source.name, "truncated: the file ends within a part of it")
    if passed:
        raise AudioError(source.name, f"is damaged or has foreign bytes in it: {_reason(passed[0])}")


def _is_of_the_file(line: str, demuxer: str) -> bool:
    """Whether a message is the demuxer's. What decoders say while ffmpeg looks at the picture is none of ours."""
    context = re.match(r"\[([^\]@]+)", line)
    if context is None:
        return bool(line.strip()) and "Last message repeated" not in line
    name = context[1].strip()
    return name.startswith("in#") or demuxer in name.split(",")


def _reason(stderr: str) -> str:
    """The line that says why, of those that ffmpeg prints: the first, the others follow from it."""
    lines = [_CONTEXT.sub("", line).strip() for line in stderr.splitlines() if line.strip()]
    if any("matches no streams" in line for line in lines):
        return "there is no sound in it"
    return lines[0] if lines else "no reason given"


def _read(process: subprocess.Popen[bytes], size: int, source: Source) -> bytes:
    """Up to ``size`` bytes of sound, fewer at its end only; the process is ended where they do not come in time."""
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    watch = threading.Timer(STALL_SECONDS, stop)
    watch.daemon = True
    watch.start()
    try:
        got = process.stdout.read(size)
    finally:
        watch.cancel()
    if late.is_set():
        raise AudioError(source.name, f"ffmpeg gave no sound for {STALL_SECONDS:g} s and was stopped")
    return got


def _shape(process: subprocess.Popen[bytes], source: Source) -> Shape | None:
    """Rate and channels by the header of the WAV that ffmpeg writes, None where it writes none; its sound is next."""
    _read(process, 12, source)
    shape = None
    while len(head := _read(process, 8, source)) == 8:
        kind, size = head[:4], struct.unpack("<I", head[4:])[0]
        if kind == b"data":
            return shape
        content = _read(process, size + size % 2, source)
        if kind == b"fmt ":
            channels, rate = struct.unpack("<HI", content[2:8])
            shape = Shape(rate, channels)
    return None


def _blocks(process: subprocess.Popen[bytes], source: Source, shape: Shape) -> Iterator[np.ndarray]:
    width = 4 * shape.channels
    size = max(1, _BLOCK_BYTES // width) * width
    frames = 0
    while part := _read(process, size, source):
        block = np.frombuffer(part[: len(part) // width * width], "<f4").reshape(-1, shape.channels)
        frames += len(block)
        _require_within_limits(frames, shape, source)
        yield block


def _require_within_limits(frames: int, shape: Shape, source: Source) -> None:
    if frames / shape.rate > LONGEST_SECONDS:
        raise AudioError(source.name, f"holds more than {LONGEST_SECONDS / 3600:g} hours of sound: cut it")
    if frames * shape.channels * 4 > LARGEST_BYTES:
        raise AudioError(
            source.name,
            f"holds more than {LARGEST_BYTES >> 30} GiB of decoded sound ({shape.rate} Hz, {shape.channels} channels): "
            "cut it, or convert it to a lower rate and fewer channels",
        )
