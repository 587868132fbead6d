"""Sound files that soundfile reads, as one run of samples: also those that were joined, or whose header is wrong."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from training.data.sound.info import AudioError, AudioInfo
from training.data.sound.layout.find import sections
from training.data.sound.layout.parts import LayoutError, Section, opened

if TYPE_CHECKING:
    import soundfile

_MP3_LEAD = 1
"""Seconds decoded before a stretch of an MP3 and thrown away: its frames borrow bits from those before them, and
libsndfile gives silence for the ones right after a jump."""
_NO_COUNT = 1 << 60
"""libsndfile's number of samples for "unknown" is larger than this."""


class SoundFile:
    """An open sound: `read` from where the last call or `seek` stopped; ``frames`` counts samples per channel.

    Raises `AudioError` where the file cannot be decoded, or gives less than its header states.
    """

    def __init__(self, name: str, parts: list[soundfile.SoundFile], estimated: bool) -> None:
        self.name, self.parts, self.estimated = name, parts, estimated
        self.sample_rate: int = parts[0].samplerate
        self.channels: int = parts[0].channels
        self.starts = [0, *accumulate(part.frames for part in parts)]
        self.frames = self.starts[-1]
        self.at = 0
        self._places = [0] * len(parts)

    @property
    def info(self) -> AudioInfo:
        """Its length and shape."""
        return AudioInfo(self.frames / self.sample_rate, self.sample_rate, self.channels, self.frames)

    @property
    def uncertain(self) -> int:
        """Samples by which ``frames`` may be too many: an MPEG stream whose frames cannot be counted has it guessed."""
        return round(0.01 * self.frames + 0.1 * self.sample_rate) if self.estimated else 0

    def seek(self, frame: int) -> None:
        """Go to a sample; the next `read` begins there."""
        self.at = frame

    def read(self, frames: int) -> np.ndarray:
        """The next samples, float32 ``[time, channels]``; fewer only where they cannot be had."""
        found, missing = [np.zeros((0, self.channels), np.float32)], min(frames, self.frames - self.at)
        while missing > 0:
            number = bisect_right(self.starts, self.at) - 1
            wanted = min(missing, self.starts[number + 1] - self.at)
            samples = self._read_part(number, self.at - self.starts[number], wanted)
            found.append(samples)
            self.at += len(samples)
            missing -= len(samples)
            if len(samples) < wanted:
                break
        return found[1] if len(found) == 2 else np.concatenate(found)

    def require_end(self) -> None:
        """Look whether the last sample of each part can be decoded: no header tells that the end of a FLAC is missing."""
        import soundfile

        for number, part in enumerate(self.parts):
            if part.format != "FLAC":
                continue
            self._places[number] = -1
            try:
                part.seek(part.frames - 1)
                found = len(part.read(1, dtype="float32"))
            except soundfile.LibsndfileError:
                found = 0
            if not found:
                stated = f"{part.frames / part.samplerate:.3f} s ({part.frames} samples)"
                raise AudioError(self.name, f"truncated: the last sample of its {stated} cannot be decoded")

    def _read_part(self, number: int, start: int, frames: int) -> np.ndarray:
        """In an MP3 by way of the frames before the stretch, in one call."""
        import soundfile

        part, lead = self.parts[number], 0
        try:
            if (
                part.format == "MP3"
            ):  # soundfile jumps after each read, which its decoder does not always stand
                lead = min(start, _MP3_LEAD * self.sample_rate)
            if self._places[number] != start - lead:
                part.seek(start - lead)
            samples = part.read(frames + lead, dtype="float32", always_2d=True)[lead:]
        except soundfile.LibsndfileError as error:
            raise AudioError(self.name, f"cannot be decoded: {_reason(error)}") from error
        self._places[number] = start + len(samples)
        return samples


@contextmanager
def open_sound(handle: BinaryIO, container: str, name: str, key: Hashable = None) -> Iterator[SoundFile]:
    """An open file of ``container`` as a `SoundFile`. ``name``: for messages; ``key``: see `sections`. Raises `AudioError`."""
    with ExitStack() as stack:
        try:
            found = sections(handle, container, key)
        except LayoutError as error:
            raise AudioError(name, str(error)) from error
        parts = [stack.enter_context(_open_part(handle, one, name)) for one in found]
        filled = [part for part in parts if part.frames] or parts[:1]
        _require_one_shape(filled, name)
        yield SoundFile(name, filled, any(one.estimated for one in found))


def _open_part(handle: BinaryIO, section: Section, name: str) -> soundfile.SoundFile:
    import soundfile

    try:
        part = soundfile.SoundFile(opened(handle, section))
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(name, f"cannot be decoded: {_reason(error)}") from error
    if part.frames > _NO_COUNT:
        part.close()
        raise AudioError(name, "holds no samples: its header leaves their number open, and none follow")
    if section.frames is not None and part.frames != section.frames:
        there, stated = part.frames / part.samplerate, section.frames / part.samplerate
        part.close()
        raise AudioError(
            name, f"cannot be decoded: {stated:.3f} s of sound lie in it, {there:.3f} s can be read"
        )
    return part


def _require_one_shape(parts: list[soundfile.SoundFile], name: str) -> None:
    """`AudioError` for sounds that were joined and do not go together."""
    shapes = [(part.samplerate, part.channels) for part in parts]
    if len(set(shapes)) > 1:
        each = " and ".join(
            f"{part.frames / part.samplerate:.3f} s at {part.samplerate} Hz with {part.channels} channels"
            for part in parts[:4]
        )
        raise AudioError(name, f"joined of {len(parts)} sounds that differ: {each}; split the file")


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")
