"""Live speech of one speaker: when somebody speaks, where a window ends, which words are certain by now.

A window of speech is decoded again and again while it grows. A word counts as soon as two hypotheses in a row agree on it and
on all words before it (local agreement: Macháček, Dabre and Bojar 2023, "Turning Whisper into Real-Time Transcription
System"), and is never taken back. At a pause the whole window is decoded once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import soxr

from training.data.example import SpokenWord
from training.transcription.speech_regions import SAMPLE_RATE, EnergyDetector

PAUSE = 0.7
"""Seconds of silence that end a window, as offline."""
PAD = 0.1
"""Seconds around speech, as offline."""
LEAD = 0.5
"""Seconds that are kept before speech begins."""
STEP = 0.4
"""Seconds of new sound between two hypotheses."""
CONTEXT = 2.0
"""Seconds before the last certain word that a hypothesis begins with: what came before it does not change any more."""
FRESH = 0.3
"""A word that ends so close to the end of the sound may be cut, and is not certain."""
HISTORY = 30.0
"""Seconds whose level says what is loud and what is quiet."""
LOOK = 0.1
"""Seconds of new sound after which the levels are looked at."""


class Resampled:
    """Sound that arrives in pieces, at another rate."""

    def __init__(self, rate: int, wanted: int) -> None:
        self._stream = None if rate == wanted else soxr.ResampleStream(rate, wanted, 1, dtype="float32")

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return samples if self._stream is None else self._stream.resample_chunk(samples)


@dataclass(frozen=True)
class AudioSpan:
    """What is to be decoded. start: second of the session that its first sample is at. samples: float32 ``[time]``."""

    start: float
    samples: np.ndarray


@dataclass(frozen=True)
class Ended:
    """A window has ended, at a pause or because it is as long as the model takes. sound: all of it."""

    sound: AudioSpan


@dataclass(frozen=True)
class Began:
    """Somebody begins to speak. at: second of the session."""

    at: float


class Segmenter:
    """Cuts the sound of a session into windows.

    Args:
        rate: of the sound that is added, in Hz.
        model_rate: of the sound that is handed out.
        longest: seconds of a window.
        pause: seconds of silence that end a window.
        began: second of the session at which the sound begins.
    """

    def __init__(
        self, rate: int, model_rate: int, longest: float, pause: float = PAUSE, began: float = 0.0
    ) -> None:
        self.model_rate, self.longest, self.pause = model_rate, longest, pause
        self._to_model, self._to_detector = Resampled(rate, model_rate), Resampled(rate, SAMPLE_RATE)
        self._detector = EnergyDetector()
        self._step = round(self._detector.hop * SAMPLE_RATE)
        self._sound, self._first = np.zeros(0, np.float32), round(began * model_rate)
        self._received = np.zeros(0, np.float32)
        self._levels, self._levels_from = np.zeros(0, np.float32), round(began / self._detector.hop)
        self._looked = self._levels_from
        self.speaking_since: float | None = None
        self._start = began

    @property
    def now(self) -> float:
        """Seconds of the session that have been received."""
        return (self._levels_from + len(self._levels)) * self._detector.hop

    def add(self, samples: np.ndarray) -> list[Began | Ended]:
        """More sound, float32 ``[time]`` at the session's rate; what follows from it."""
        found: list[Began | Ended] = []
        for piece in np.array_split(samples, max(1, len(samples) // 8_000)):
            self._sound = np.concatenate((self._sound, self._to_model(piece)))
            received = np.concatenate((self._received, self._to_detector(piece)))
            whole = len(received) // self._step * self._step
            if whole:
                self._levels = np.concatenate((self._levels, self._detector.track(received[:whole])))
            self._received = received[whole:]
            if (self._levels_from + len(self._levels) - self._looked) * self._detector.hop >= LOOK:
                found += self._look()
        return found

    def _look(self) -> list[Began | Ended]:
        hop = self._detector.hop
        surplus = len(self._levels) - round(HISTORY / hop)
        if surplus > 0:
            self._levels, self._levels_from = self._levels[surplus:], self._levels_from + surplus
        self._looked = self._levels_from + len(self._levels)
        spoken = (np.flatnonzero(self._detector.speech(self._levels)) + self._levels_from) * hop
        spoken = spoken[spoken >= self._start]
        if not len(spoken):
            self._forget(self.now - LEAD)
            return []
        found: list[Began | Ended] = []
        if self.speaking_since is None:
            self.speaking_since = float(spoken[0])
            self._forget(max(self._start, self.speaking_since - LEAD))
            found.append(Began(self.speaking_since))
        if self.now - spoken[-1] >= self.pause:
            found.append(self._ended(float(spoken[-1]) + hop + PAD))
        elif self.now - self._start >= self.longest:
            found.append(self._ended(self._quietest()))
        return found

    def _quietest(self) -> float:
        """The quietest tenth of a second in the second half of the window."""
        hop = self._detector.hop
        first = max(0, round((self._start + self.longest / 2) / hop) - self._levels_from)
        levels = np.convolve(self._levels[first:], np.full(10, 0.1), mode="valid")
        return (self._levels_from + first + int(levels.argmin()) + 5) * hop

    def finish(self) -> list[Began | Ended]:
        """The window ends now: whatever is said after this belongs to another one."""
        found = self._look() if self._levels_from + len(self._levels) > self._looked else []
        if self.speaking_since is not None:
            found.append(self._ended(self.now))
        self._forget(self.now)
        return found

    def _ended(self, at: float) -> Ended:
        assert self.speaking_since is not None
        start = max(self._start, self.speaking_since - PAD)
        sound = self.sound(start, at)
        self.speaking_since = None
        self._forget(at)
        return Ended(sound)

    def sound(self, start: float, end: float | None = None) -> AudioSpan:
        """From one second of the session to another; None: to the newest sound."""
        first = max(0, round(start * self.model_rate) - self._first)
        stop = len(self._sound) if end is None else max(first, round(end * self.model_rate) - self._first)
        return AudioSpan((self._first + first) / self.model_rate, self._sound[first:stop])

    def window(self, certain: float | None) -> AudioSpan:
        """What the next hypothesis is of. certain: end of the last certain word."""
        assert self.speaking_since is not None
        start = max(self._start, self.speaking_since - PAD)
        return self.sound(start if certain is None else max(start, certain - CONTEXT))

    def _forget(self, before: float) -> None:
        self._start = max(self._start, before)
        gone = max(0, round(self._start * self.model_rate) - self._first)
        gone = min(gone, len(self._sound))
        self._sound, self._first = self._sound[gone:], self._first + gone


@dataclass
class Agreement:
    """The words of a window. certain: those that are never taken back. open: the rest of the newest hypothesis."""

    certain: list[SpokenWord] = field(default_factory=list)
    open: list[SpokenWord] = field(default_factory=list)

    @property
    def end(self) -> float | None:
        """Of the last certain word."""
        return self.certain[-1].end if self.certain else None

    def add(self, words: Sequence[SpokenWord], now: float) -> list[SpokenWord]:
        """A hypothesis, times in seconds of the session, ``now`` the end of its sound; the words that are certain by it."""
        rest = self._after(words)
        agreed = 0
        for old, new in zip(self.open, rest, strict=False):
            if old.text != new.text or new.end > now - FRESH:
                break
            agreed += 1
        news = rest[:agreed]
        self.certain += news
        self.open = rest[agreed:]
        return news

    def finish(self, words: Sequence[SpokenWord]) -> list[SpokenWord]:
        """The words of the whole window, by its last hypothesis; the certain ones stay as they were told.

        Where the hypothesis begins with them they get its times and confidences.
        """
        texts = [word.text for word in self.certain]
        if [word.text for word in words[: len(texts)]] == texts:
            return list(words)
        return [*self.certain, *self._after(words)]

    def _after(self, words: Sequence[SpokenWord]) -> list[SpokenWord]:
        end = self.end
        return [word for word in words if end is None or (word.start + word.end) / 2 > end]


def placed(words: Sequence[SpokenWord], start: float) -> list[SpokenWord]:
    """Words with times in seconds of the session, of a stretch that begins at ``start``."""
    return [replace(word, start=word.start + start, end=word.end + start) for word in words]
