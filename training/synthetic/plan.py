"""The plan of a demo corpus: speakers, sentences and recordings, made before the synthesis."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

UNHEARD = "unheard"
SNRS: tuple[float | None, ...] = (None, 30.0, 20.0, 15.0)
UNHEARD_VIDEOS = 2
SILENCE = (0.05, 0.25)
"""Seconds of silence before and after a clip, from and to."""
_UNHEARD_UTTERANCES = 60

T = TypeVar("T")
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Speaker:
    """An espeak voice with a variant, its rate in words a minute and its pitch of 0–99."""

    name: str
    voice: str
    rate: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Take:
    """One utterance to synthesise (SSML) and the cells that it gives to the manifest: a row for each text of the clip.

    Where the words of the transcript shall have times, ``positions`` are the places of their first characters in
    the SSML (`training.synthetic.espeak_words.place`).
    """

    speaker: Speaker
    ssml: str
    cells: tuple[Mapping[str, str], ...]
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Video:
    """One recording session: the input of a worker that synthesises it.

    It ends after ``seconds`` of speech. Of ``together`` takes in sequence all are spoken or none. ``noise_slope`` is the exponent of 1/f, ``snr_db`` is None without noise, ``level_db`` that of the speech.
    ``silence`` is that around every clip, in seconds, from and to.
    """

    id: str
    takes: tuple[Take, ...]
    seconds: float
    snr_db: float | None
    noise_slope: float
    level_db: float
    seed: int
    together: int = 1
    split_hint: str = ""
    silence: tuple[float, float] = SILENCE


@dataclass(frozen=True, slots=True)
class Corpus:
    """A demo corpus: ``plan(minutes, seed)`` gives its videos, ``columns`` are those of its manifest.

    ``minutes`` and ``folder`` (below ``data/``) are defaults; ``tell`` describes what is special about the rows of this corpus.
    """

    minutes: float
    folder: str
    columns: tuple[str, ...]
    plan: Callable[[float, int], list[Video]]
    tell: Callable[[Sequence[Row]], str]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a corpus for some minutes of speech.

    Each of the ``training_videos`` gets ``turns`` times ``block`` sentences and ``seconds`` of speech. Each of the
    `UNHEARD_VIDEOS`, whose speakers are not in training, gets ``unheard`` sentences.
    """

    training_videos: int
    seconds: float
    block: int
    turns: int
    unheard: int

    @classmethod
    def of(
        cls, minutes: float, training_videos: int, *, block: int, shortest_mean: float, together: int = 1
    ) -> Size:
        """The size for ``minutes`` of speech in the training videos.

        Args:
            minutes: of speech in all training videos together.
            training_videos: number of videos whose speakers are in training.
            block: sentences of one turn.
            shortest_mean: seconds of a clip, estimated low, so that there are enough sentences.
            together: as in `Video`.
        """
        seconds = minutes * 60 / training_videos
        turns = math.ceil(seconds / shortest_mean / block)
        unheard = max(1, min(_UNHEARD_UTTERANCES, round(minutes * 1.5)) // UNHEARD_VIDEOS)
        return cls(training_videos, seconds, block, turns, math.ceil(unheard / together) * together)

    @property
    def sentences(self) -> int:
        return self.training_videos * self.turns * self.block + UNHEARD_VIDEOS * self.unheard

    def in_training(self, number: int) -> bool:
        """Whether the speaker of the video of this number is in training; the videos of unheard speakers come last."""
        return number < self.training_videos

    def deal(self, sentences: Sequence[T]) -> list[tuple[T, ...]]:
        """The sentences of each video; the videos of unheard speakers come last.

        Blocks of sentences go to the videos in turn, so that every video has the same shares of kinds. Sentences that
        find no time in a video are the last ones of the corpus.
        """
        step = self.block
        starts = [
            [(turn * self.training_videos + n) * step for turn in range(self.turns)]
            for n in range(self.training_videos)
        ]
        shares = [tuple(one for at in own for one in sentences[at : at + step]) for own in starts]
        rest = sentences[self.training_videos * self.turns * step :]
        halves = [rest[n * self.unheard : (n + 1) * self.unheard] for n in range(UNHEARD_VIDEOS)]
        return shares + [tuple(half) for half in halves]


def sessions(
    texts: Callable[[int, int], Sequence[T]],
    session: Callable[[int, tuple[T, ...], Size, random.Random], Video],
    size: Size,
    seed: int,
) -> list[Video]:
    """The videos of a corpus: those of speakers in training, then those of the unheard ones.

    Args:
        texts: as many sentences as it is given, drawn with a seed.
        session: the video of a number: its sentences, the size of the corpus, random numbers.
        size: of the corpus.
        seed: of all random numbers.
    """
    shares = size.deal(texts(size.sentences, seed))
    rng = random.Random(seed)
    return [session(number, share, size, rng) for number, share in enumerate(shares)]


def turn_of(number: int, speakers: Sequence[T]) -> tuple[T, float | None]:
    """The speaker whose turn it is in the video of a number, and the signal-to-noise ratio of the video, in decibels.

    Speakers take turns; each goes through all of `SNRS`.
    """
    turn, index = divmod(number, len(speakers))
    return speakers[index], SNRS[(turn + index) % len(SNRS)]


def in_session(speaker: Speaker, rng: random.Random) -> Speaker:
    """The speaker with a random change for one session: rate ±4 %, pitch ±3."""
    rate = round(speaker.rate * rng.uniform(0.96, 1.04))
    return Speaker(speaker.name, speaker.voice, rate, speaker.pitch + rng.randint(-3, 3))


def record_session(
    video_id: str,
    takes: Iterable[Take],
    rng: random.Random,
    size: Size,
    number: int,
    *,
    snr_db: float | None,
    together: int = 1,
    silence: tuple[float, float] = SILENCE,
) -> Video:
    """The video of one session, with its own background noise and recording level. An unheard speaker speaks all of its
    sentences."""
    return Video(
        id=video_id,
        takes=tuple(takes),
        seconds=size.seconds if size.in_training(number) else math.inf,
        snr_db=snr_db,
        noise_slope=rng.choice((0.0, 1.0, 2.0)),
        level_db=rng.uniform(-26.0, -20.0),
        seed=rng.randrange(2**31),
        together=together,
        split_hint="" if size.in_training(number) else UNHEARD,
        silence=silence,
    )
