"""One sound, two ways to write it: a small Korean corpus that proves what a domain token decides.

Every clip has two rows with the same ``audio_path``. In domain ``spelled`` its number is written in words (이십삼 번),
in domain ``digits`` in digits (23번). Nothing but the domain tells which text is wanted. Columns and hints as in the
Korean corpus; both rows of a clip share their ``group``, so that no split tears them apart.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.korean_numbers import sino
from training.synthetic.espeak import ssml
from training.synthetic.korean import KOREAN, TYPICAL, UNHEARD_TYPICAL
from training.synthetic.korean_text import fill
from training.synthetic.plan import (
    SNRS,
    UNHEARD_VIDEOS,
    Corpus,
    Row,
    Size,
    Take,
    Video,
    in_session,
    record_session,
)
from training.synthetic.writer import write_all

SPELLED, DIGITS = "spelled", "digits"
SESSIONS = 10
_SHORTEST_MEAN = 2.4
_NUMBERS = range(20, 100)
"""All of two digits and read the same whatever is counted."""
_NUMBER = "#"

PATTERNS = (
    "{who|은/는} #번 {door|으로/로} 가요.",
    "{who|이/가} {future} #번 버스를 타요.",
    "{shop|은/는} #층 {side}에 있어요.",
    "{who|은/는} {subject} #점을 받았어요.",
    "{who|은/는} {read|을/를} #쪽까지 읽었어요.",
    "{place}까지 {transport|으로/로} #분 걸려요.",
    "{who|은/는} {fruit} #개를 샀어요.",
    "{who|은/는} {animal} #마리를 그렸어요.",
)
"""Patterns as in `demo_korean_grammar`; ``#`` is the number."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A sentence with a number, in both conventions."""

    spelled: str
    digits: str
    pattern: str

    @property
    def transcript(self) -> str:
        return self.spelled

    @property
    def core(self) -> str:
        return self.spelled

    @property
    def texts(self) -> set[str]:
        return {self.spelled, self.digits}


def sentences(count: int, seed: int) -> list[Numbered]:
    """``count`` sentences, any two at least two word edits apart. `UserError` where the grammar has no more."""
    return write_all("numbered", count, seed, _draw)


def _draw(_kind: str, rng: random.Random) -> Numbered | None:
    pattern, number = rng.choice(PATTERNS), rng.choice(_NUMBERS)
    text = fill(pattern, rng)
    if text is None:
        return None
    return Numbered(text.replace(_NUMBER, f"{sino(number)} "), text.replace(_NUMBER, str(number)), pattern)


def plan(minutes: float, seed: int) -> list[Video]:
    """The videos of the corpus: the typical speakers of the Korean corpus take turns, one session each."""
    size = Size.of(minutes, SESSIONS, block=1, shortest_mean=_SHORTEST_MEAN)
    shares = size.deal(sentences(size.sentences, seed))
    rng = random.Random(seed)
    return [_session(number, shares[number], size, rng) for number in range(SESSIONS + UNHEARD_VIDEOS)]


def _session(number: int, share: Sequence[Numbered], size: Size, rng: random.Random) -> Video:
    speaker = in_session(TYPICAL[number % len(TYPICAL)] if size.in_training(number) else UNHEARD_TYPICAL, rng)
    takes = [Take(speaker, ssml([(sentence.spelled, None)]), _cells(sentence)) for sentence in share]
    return record_session(
        f"demo_co{number + 1:02d}",
        takes,
        rng,
        size,
        number,
        snr_db=SNRS[number % len(SNRS)],
    )


def _cells(sentence: Numbered) -> tuple[Row, ...]:
    shared = {"language": "ko", "kind": "fluent", "spoken": sentence.spelled}
    return (
        {"transcript": sentence.spelled, "domain": SPELLED, **shared},
        {"transcript": sentence.digits, "domain": DIGITS, **shared},
    )


def _tell(rows: Sequence[Row]) -> str:
    return f"{len({row['audio_path'] for row in rows})} clips, each written in two conventions"


CONVENTIONS = Corpus(minutes=17.5, folder="conventions", columns=KOREAN.columns, plan=plan, tell=_tell)
