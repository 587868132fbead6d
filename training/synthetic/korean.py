"""The Korean demo corpus: a typical and an atypical population of speakers, no speaker in both.

Domain ``normal`` speaks fluently. Domain ``dyslexic`` speaks slowly, repeats and swaps syllables and pauses between
and inside words; the transcript is the sentence that was meant. In each session one speaker of each population
speaks with the same noise and level: two sentences of ``normal`` for one of ``dyslexic``. A split by sessions
therefore has both domains in every part, and the noise does not identify the domain. No sentence occurs twice.

Columns: ``id, group`` (the session), ``audio_path, duration, transcript, speaker, language`` (``ko``), ``domain``;
``kind``: ``fluent``, ``slow``, or what else was done, joined with ``+`` (``repeated``, ``swapped``, ``paused``);
``spoken``: the spoken words, ``…`` where the speaker paused; ``voice``, ``snr_db`` (empty: no noise);
``split_hint``: ``unheard`` on the rows of two speakers, one of either population, outside train, dev and test.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from training.synthetic.deviations import PAUSED, REPEATED, SWAPPED, Habits, Spoken, deviate, fluently
from training.synthetic.korean_text import KoreanSentence, is_syllable, sentences
from training.synthetic.plan import (
    Corpus,
    Row,
    Size,
    Speaker,
    Take,
    Video,
    in_session,
    record_session,
    sessions,
    turn_of,
)

NORMAL, DYSLEXIC = "normal", "dyslexic"
_SHORTEST_MEAN = 2.6
_TURN = (NORMAL, NORMAL, DYSLEXIC)
"""The domains of the speakers in turn."""

TYPICAL = (
    Speaker("seoyeon", "ko+f2", 215, 52),
    Speaker("jiho", "ko", 220, 45),
    Speaker("minjun", "ko+m3", 210, 58),
    Speaker("haeun", "ko+f4", 220, 48),
    Speaker("dohyun", "ko+m1", 215, 50),
    Speaker("yuna", "ko+f1", 210, 54),
)
UNHEARD_TYPICAL = Speaker("taeho", "ko+m6", 215, 50)


@dataclass(frozen=True, slots=True)
class Atypical:
    """A speaker of the domain ``dyslexic``: a slow voice and its habits."""

    speaker: Speaker
    habits: Habits


ATYPICAL = (
    Atypical(Speaker("eunji", "ko+f3", 145, 50), Habits(repeat=0.30, swap=0.05, block=0.05, pause=0.25)),
    Atypical(Speaker("hyunwoo", "ko+m5", 150, 55), Habits(repeat=0.15, swap=0.20, block=0.05, pause=0.20)),
    Atypical(Speaker("siwoo", "ko+m7", 135, 48), Habits(repeat=0.20, swap=0.08, block=0.20, pause=0.20)),
    Atypical(Speaker("jimin", "ko+m2", 140, 60), Habits(repeat=0.12, swap=0.10, block=0.10, pause=0.40)),
    Atypical(Speaker("chaewon", "ko+f5", 150, 46), Habits(repeat=0.25, swap=0.15, block=0.10, pause=0.15)),
)
UNHEARD_ATYPICAL = Atypical(
    Speaker("sujin", "ko+m4", 142, 56), Habits(repeat=0.20, swap=0.12, block=0.10, pause=0.25)
)


def plan(minutes: float, seed: int) -> list[Video]:
    """The videos of the corpus: each session pairs a typical speaker with an atypical one, every pair once."""
    training_videos = len(TYPICAL) * len(ATYPICAL)
    size = Size.of(
        minutes, training_videos, block=len(_TURN), shortest_mean=_SHORTEST_MEAN, together=len(_TURN)
    )
    return sessions(sentences, _session, size, seed)


def _session(number: int, share: Sequence[KoreanSentence], size: Size, rng: random.Random) -> Video:
    in_training = size.in_training(number)
    typical, snr_db = turn_of(number, TYPICAL)
    typical = typical if in_training else UNHEARD_TYPICAL
    # 6 and 5 have no common divisor, so that thirty sessions give all thirty pairs.
    atypical = ATYPICAL[number % len(ATYPICAL)] if in_training else UNHEARD_ATYPICAL
    return record_session(
        f"demo_ko{number + 1:02d}",
        _takes(
            share, in_session(typical, rng), Atypical(in_session(atypical.speaker, rng), atypical.habits), rng
        ),
        rng,
        size,
        number,
        snr_db=snr_db,
        together=len(_TURN),
    )


def _takes(
    share: Sequence[KoreanSentence], typical: Speaker, atypical: Atypical, rng: random.Random
) -> list[Take]:
    """The takes of a session: the speakers take turns as in `_TURN`."""
    takes = []
    for at, sentence in enumerate(share):
        text = sentence.transcript
        if _TURN[at % len(_TURN)] == NORMAL:
            takes.append(_take(typical, NORMAL, "fluent", text, fluently(text)))
        else:
            deviated = deviate(text, atypical.habits, rng)
            takes.append(
                _take(atypical.speaker, DYSLEXIC, "+".join(deviated.kinds) or "slow", text, deviated)
            )
    return takes


def _take(speaker: Speaker, domain: str, kind: str, transcript: str, spoken: Spoken) -> Take:
    cells = {
        "transcript": transcript,
        "language": "ko",
        "domain": domain,
        "kind": kind,
        "spoken": spoken.text,
    }
    return Take(speaker, spoken.ssml, (cells,))


def syllable_edits(row: Row) -> tuple[int, int]:
    """Edits from the transcript of a row to what was spoken, and syllables of the transcript."""
    transcript, spoken = ("".join(filter(is_syllable, row[column])) for column in ("transcript", "spoken"))
    return Levenshtein.distance(transcript, spoken), len(transcript)


def _tell(rows: Sequence[Row]) -> str:
    atypical = [row for row in rows if row["domain"] == DYSLEXIC]
    kinds = Counter(kind for row in atypical for kind in row["kind"].split("+"))
    edits, syllables = (sum(column) for column in zip(*map(syllable_edits, atypical), strict=True))
    shares = ", ".join(f"{kinds[kind] / len(atypical):.0%} {kind}" for kind in (REPEATED, SWAPPED, PAUSED))
    return (
        f"{_mean_of(rows, NORMAL)}, {_mean_of(rows, DYSLEXIC)} "
        f"({shares}; {edits / syllables:.1%} of their syllables wrong)"
    )


def _mean_of(rows: Sequence[Row], domain: str) -> str:
    seconds = [float(row["duration"]) for row in rows if row["domain"] == domain]
    return f"{len(seconds)} {domain} of {sum(seconds) / len(seconds):.2f} s"


KOREAN = Corpus(
    minutes=40.0,
    folder="korean",
    columns=(
        "id", "group", "audio_path", "duration", "transcript", "speaker", "language", "domain", "kind",
        "spoken", "voice", "snr_db", "split_hint",
    ),
    plan=plan,
    tell=_tell,
)  # fmt: skip
