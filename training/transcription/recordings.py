"""The windows of recordings: as a dataset of encoded utterances, and what is found out about each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.data.audio import AudioError, load_with_channel
from training.data.example import AudioRef, Example, Hypothesis
from training.data.sound.downmix import CANCELLED
from training.transcription.spoken_language import SpokenLanguage, detected, likeliest
from training.transcription.windows import Window

Place = tuple[int, int]
"""Number of a recording, number of its window."""


@dataclass(frozen=True)
class Recording:
    """A file and the windows that contain its speech. channel: the channel that is used; None: all, mixed to mono."""

    path: str
    seconds: float
    windows: tuple[Window, ...]
    channel: int | None = None


@dataclass
class Work:
    """What is known of the windows of some recordings, by the numbers of recording and window."""

    recordings: Sequence[Recording]
    progress: Callable[[float], None]
    hypotheses: dict[Place, Mapping[str, Hypothesis]] = field(default_factory=dict)
    probabilities: dict[Place, Mapping[str, float]] = field(default_factory=dict)
    broken: dict[int, UserError] = field(default_factory=dict)
    taken: dict[int, str] = field(default_factory=dict)

    def of(self, file: int) -> list[Mapping[str, Hypothesis]]:
        """The hypotheses of a recording's windows."""
        return [self.hypotheses[file, n] for n in range(len(self.recordings[file].windows))]

    def decoded_in(self) -> dict[Place, str | None]:
        """The language that each window was decoded in, where it was detected."""
        return {place: likeliest(found) for place, found in self.probabilities.items()}

    def languages(self) -> dict[int, SpokenLanguage | None]:
        """The detected language of each recording, from the windows that were looked at."""
        return {
            file: detected(
                (one.windows[n].seconds, self.probabilities.get((file, n), {}))
                for n in range(len(one.windows))
            )
            for file, one in enumerate(self.recordings)
        }


class Windows:
    """Windows of recordings as a dataset of encoded utterances, as `predict` takes it.

    ``places[row]``: number of the recording, number of its window. ``languages``: of each recording, for the prompts.
    ``broken``: recordings, by number, of which a window could not be encoded; a second of silence takes its place.
    ``taken``: recordings, by number, whose channels cancel each other, with a note on the channel that is used instead of
    their mean.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        places: Sequence[Place],
        architecture: Any,
        languages: Mapping[int, str | None],
    ) -> None:
        self.architecture = architecture
        self.places = list(places)
        self.manifest = [_example(recordings[f], f, n, languages[f]) for f, n in self.places]
        self.durations = np.array([row.duration for row in self.manifest], dtype=np.float32)
        self.broken: dict[int, UserError] = {}
        self.taken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example = self.manifest[row]
        try:
            samples, channel = load_with_channel(example.audio, self.architecture.sample_rate)
            if channel is not None:
                self.taken.setdefault(self.places[row][0], f"{CANCELLED} channel {channel}, which is used")
            return self.architecture.encode(example, samples)
        except (ValueError, OSError) as error:
            place = "" if isinstance(error, AudioError) else f"{example.audio.path}: "
            self.broken[self.places[row][0]] = UserError(f"{place}{error}")
            return self.architecture.encode(
                example, np.zeros(self.architecture.sample_rate, dtype=np.float32)
            )


def _example(recording: Recording, file: int, number: int, language: str | None) -> Example:
    window = recording.windows[number]
    whole = window.start == 0.0 and window.end >= recording.seconds
    stretch = AudioRef(
        path=recording.path, start=window.start, end=None if whole else window.end, channel=recording.channel
    )
    return Example(id=f"{file}:{number}", audio=stretch, duration=window.seconds, texts={}, language=language)
