"""Who says what in which recording: the plan of a demo corpus, made before anything is spoken."""

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
    """One thing to say (SSML) and the cells that it gives to the manifest: a row for each text of the clip.

    Where the words of the transcript shall have times, ``positions`` are the places of their first characters in
    the SSML (`training.synthetic.espeak_words.place`).
    """

    speaker: Speaker
    ssml: str
    cells: tuple[Mapping[str, str], ...]
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Video:
    """One recording session, all that a worker needs to make it.

    It ends when ``seconds`` are full; ``together`` takes are all spoken or none. ``noise_slope`` is the exponent of 1/f, ``snr_db`` is None without noise, ``level_db`` that of the speech.
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
    """A demo corpus: ``plan(minutes, seed)`` says what to speak, ``columns`` are those of its manifest.

    ``minutes`` and ``folder`` (below ``data/``) are defaults; ``tell`` says of the rows what only this corpus has.
    """

    minutes: float
    folder: str
    columns: tuple[str, ...]
    plan: Callable[[float, int], list[Video]]
    tell: Callable[[Sequence[Row]], str]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is written for ``minutes`` of speech: every video gets ``turns`` times ``block`` sentences.

    ``seconds`` is the time of a heard video; each of the `UNHEARD_VIDEOS` has ``unheard`` sentences.
    """

    heard: int
    seconds: float
    block: int
    turns: int
    unheard: int

    @classmethod
    def of(cls, minutes: float, heard: int, *, block: int, shortest_mean: float, together: int = 1) -> Size:
        """Sentences are written ahead, for clips of ``shortest_mean`` seconds; ``together`` as in `Video`."""
        seconds = minutes * 60 / heard
        turns = math.ceil(seconds / shortest_mean / block)
        unheard = max(1, min(_UNHEARD_UTTERANCES, round(minutes * 1.5)) // UNHEARD_VIDEOS)
        return cls(heard, seconds, block, turns, math.ceil(unheard / together) * together)

    @property
    def sentences(self) -> int:
        return self.heard * self.turns * self.block + UNHEARD_VIDEOS * self.unheard

    def hears(self, number: int) -> bool:
        """Whether training may hear the video of this number; those of the unheard voices come last."""
        return number < self.heard

    def deal(self, sentences: Sequence[T]) -> list[tuple[T, ...]]:
        """The sentences of each video, those of the unheard voices last.

        Block by block in turn: every video has the shares of kinds, and what no time is left for was written last.
        """
        step = self.block
        starts = [[(turn * self.heard + n) * step for turn in range(self.turns)] for n in range(self.heard)]
        shares = [tuple(one for at in own for one in sentences[at : at + step]) for own in starts]
        rest = sentences[self.heard * self.turns * step :]
        halves = [rest[n * self.unheard : (n + 1) * self.unheard] for n in range(UNHEARD_VIDEOS)]
        return shares + [tuple(half) for half in halves]


def in_session(speaker: Speaker, rng: random.Random) -> Speaker:
    """Nobody speaks alike on two days: rate ±4 %, pitch ±3."""
    rate = round(speaker.rate * rng.uniform(0.96, 1.04))
    return Speaker(speaker.name, speaker.voice, rate, speaker.pitch + rng.randint(-3, 3))


def record_in_room(
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
    """The session of this number, with a background noise and a recording level of its own. An unheard voice says all
    that is written for it."""
    return Video(
        id=video_id,
        takes=tuple(takes),
        seconds=size.seconds if size.hears(number) else math.inf,
        snr_db=snr_db,
        noise_slope=rng.choice((0.0, 1.0, 2.0)),
        level_db=rng.uniform(-26.0, -20.0),
        seed=rng.randrange(2**31),
        together=together,
        split_hint="" if size.hears(number) else UNHEARD,
        silence=silence,
    )
