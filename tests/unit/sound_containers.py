"""Sound files for tests: every container that soundfile writes, and what can be wrong with their headers and ends."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile

LOSSLESS = {
    "wav8": ("WAV", "PCM_U8"),
    "wav16": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wav32": ("WAV", "PCM_32"),
    "wavfloat": ("WAV", "FLOAT"),
    "wavdouble": ("WAV", "DOUBLE"),
    "wavex": ("WAVEX", "PCM_16"),
    "wavmulaw": ("WAV", "ULAW"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "w64float": ("W64", "FLOAT"),
    "aiff16": ("AIFF", "PCM_16"),
    "aiff24": ("AIFF", "PCM_24"),
    "aiff8": ("AIFF", "PCM_S8"),
    "aifffloat": ("AIFF", "FLOAT"),
    "au16": ("AU", "PCM_16"),
    "aufloat": ("AU", "FLOAT"),
    "flac16": ("FLAC", "PCM_16"),
    "flac24": ("FLAC", "PCM_24"),
}
"""Name → libsndfile's format and subtype; samples come back as written, or as the codec gives them every time."""
MP3 = {
    "mp3vbr": {"bitrate_mode": "VARIABLE", "compression_level": 0.3},
    "mp3cbr": {"bitrate_mode": "CONSTANT", "compression_level": 0.5},
    "mp3bare": {"bitrate_mode": "CONSTANT", "compression_level": 0.99},
}
"""The last one states no length: at the lowest rate libsndfile writes no Info frame."""
UNKNOWN = (0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Made:
    """A file in memory and the samples ``[time, channels]`` that a decoder gives for it."""

    kind: str
    data: bytes
    samples: np.ndarray
    rate: int


def signal(seed: int, frames: int, channels: int, rate: int) -> np.ndarray:
    """Tones that rise, and a little noise: every moment differs from every other. ``[frames, channels]``."""
    draw = np.random.default_rng(seed)
    time = np.arange(frames) / rate
    low, high = sorted(draw.uniform(150, 0.2 * rate, 2))
    phase = 2 * np.pi * (low * time + (high - low) * time**2 / 2 / max(time[-1], 0.1))
    sound = 0.4 * np.sin(phase)[:, None] * draw.uniform(0.4, 1.0, channels)
    return (sound + draw.normal(0, 0.02, sound.shape)).astype(np.float32)


def made(kind: str, seed: int, frames: int, channels: int, rate: int) -> Made:
    """A sound file as libsndfile writes it, header and all."""
    sink = io.BytesIO()
    samples = signal(seed, frames, channels, rate)
    if kind in MP3:
        soundfile.write(sink, samples, rate, format="MP3", **MP3[kind])
    elif kind == "opus":
        soundfile.write(sink, samples, rate, format="OGG", subtype="OPUS")
    elif kind == "vorbis":
        soundfile.write(sink, samples, rate, format="OGG", subtype="VORBIS")
    else:
        form, subtype = LOSSLESS[kind]
        soundfile.write(sink, samples, rate, format=form, subtype=subtype)
    data = sink.getvalue()
    if kind in ("wav16", "wav8", "wavmulaw") and seed % 3 == 0:
        data = with_chunk(data)
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return Made(kind, data, decoded, rate)


def with_chunk(data: bytes, name: bytes = b"LIST") -> bytes:
    """A WAV with a chunk behind its samples, as editors write them."""
    text = b"INFOICMT" + struct.pack("<I", 10) + b"recorded.\0"
    chunk = name + struct.pack("<I", len(text)) + text
    data = data + b"\0" * (len(data) % 2) + chunk
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def replaced(data: bytes, at: int, value: bytes) -> bytes:
    """``data`` with other bytes at an offset."""
    return data[:at] + value + data[at + len(value) :]


def size_fields(made: Made) -> dict[str, tuple[int, str]]:
    """Where a header states how much there is: name → offset and `struct` format."""
    data, kind = made.data, made.kind
    if kind.startswith("wav"):
        return {"riff": (4, "<I"), "data": (data.index(b"data") + 4, "<I")}
    if kind == "rf64":
        return {"riff": (20, "<Q"), "data": (28, "<Q")}
    if kind.startswith("w64"):
        return {"riff": (16, "<Q"), "data": (data.index(b"data\xf3\xac") + 16, "<Q")}
    if kind.startswith("aiff"):
        return {
            "form": (4, ">I"),
            "data": (data.index(b"SSND") + 4, ">I"),
            "comm": (data.index(b"COMM") + 10, ">I"),
        }
    if kind.startswith("au"):
        return {"data": (8, ">I")}
    if kind in MP3 and (b"Info" in data[:64] or b"Xing" in data[:64]):
        at = max(data.find(b"Info", 0, 64), data.find(b"Xing", 0, 64))
        return {"frames": (at + 8, ">I"), "bytes": (at + 12, ">I")}
    return {}


def with_size(made: Made, field: str, change: Callable[[int], int]) -> bytes:
    """The file with another number in one of its `size_fields`."""
    at, form = size_fields(made)[field]
    (value,) = struct.unpack_from(form, made.data, at)
    top = (1 << 8 * struct.calcsize(form)) - 1
    return replaced(made.data, at, struct.pack(form, min(top, max(0, change(value)))))


def flac_with_total(data: bytes, total: int) -> bytes:
    """A FLAC whose STREAMINFO states ``total`` samples, 0: unknown."""
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
    return replaced(data, 18, packed.to_bytes(8, "big"))
