"""Shards by hand, for tests: sounds, members in any order, archives as hostile as they come."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000


def wav(seconds: float = 0.5, seed: int = 0, rate: int = RATE) -> bytes:
    """A WAV of noise with 16 bits a sample."""
    noise = np.random.default_rng(seed).integers(-9000, 9000, round(seconds * rate)).astype(np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, noise, rate, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def sidecar(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


class Entry(tarfile.TarInfo):
    """A header with its content."""

    __slots__ = ("content",)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = Entry(name)
    info.type, info.linkname, info.size, info.content = kind, link, len(content), content
    return info


def archive(path: Path, members: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> Path:
    """The members one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(one.content))
    return path


def sample(key: str, seconds: float = 0.5, suffix: str = "wav", **fields: Any) -> list[Entry]:
    """Sound and JSON of one sample; a transcript unless ``fields`` say otherwise."""
    fields = {"transcript": f"text {key}", "duration": seconds, **fields}
    kept = {name: value for name, value in fields.items() if value is not None}
    return [member(f"{key}.{suffix}", wav(seconds, len(key))), member(f"{key}.json", sidecar(**kept))]


def folder(path: Path, shards: Mapping[str, int], **fields: Any) -> Path:
    """Shards of so many samples each, keyed ``<shard>_<number>``; with the fields of every sample."""
    for name, count in shards.items():
        rows = [one for i in range(count) for one in sample(f"{name}_{i:03}", 0.2 + 0.01 * i, **fields)]
        archive(path / f"{name}.tar", rows)
    return path
