"""The English demo corpus: everyday sentences whose words have gold times.

The times are those of the synthesiser (`training.synthetic.espeak_words`), carried through resampling, trimming and the
silence around each clip. Each session has one voice, one recording level and one background noise; a third of
the sentences have a pause in them, so that words do not lie evenly. No sentence occurs twice.

Columns: ``id, group`` (the session), ``audio_path, duration, transcript`` (lower case, no punctuation), ``words`` (JSON
``[[word, start, end], …]`` in seconds of the clip, the words of the transcript one by one), ``speaker, language`` (``en``),
``voice``, ``snr_db`` (empty: no noise); ``split_hint``: ``unheard`` on the rows of a voice outside train, dev and test.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from training.synthetic.english_text import EnglishSentence, sentences, with_pause
from training.synthetic.espeak_words import place
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

SESSIONS_PER_SPEAKER = 5
SILENCE = (0.1, 0.7)
"""Seconds before and after a clip, from and to."""
_SHORTEST_MEAN = 2.1

SPEAKERS = (
    Speaker("grace", "en-us+f2", 170, 52),
    Speaker("henry", "en-us", 175, 45),
    Speaker("oliver", "en+m3", 155, 58),
    Speaker("alice", "en+f4", 175, 48),
    Speaker("jack", "en-us+m1", 185, 50),
    Speaker("chloe", "en-us+f1", 165, 54),
    Speaker("arthur", "en-gb-x-rp", 170, 44),
    Speaker("nora", "en-gb-x-rp+f3", 150, 50),
)
UNHEARD_SPEAKER = Speaker("victor", "en-us+m7", 172, 52)


def plan(minutes: float, seed: int) -> list[Video]:
    """The videos of the corpus: the speakers take turns."""
    training_videos = len(SPEAKERS) * SESSIONS_PER_SPEAKER
    size = Size.of(minutes, training_videos, block=1, shortest_mean=_SHORTEST_MEAN)
    return sessions(sentences, _session, size, seed)


def _session(number: int, share: Sequence[EnglishSentence], size: Size, rng: random.Random) -> Video:
    speaker, snr_db = turn_of(number, SPEAKERS)
    speaker = in_session(speaker if size.in_training(number) else UNHEARD_SPEAKER, rng)
    takes = [_take(speaker, sentence, rng) for sentence in share]
    name = f"demo_en{number + 1:02d}"
    return record_session(name, takes, rng, size, number, snr_db=snr_db, silence=SILENCE)


def _take(speaker: Speaker, sentence: EnglishSentence, rng: random.Random) -> Take:
    document, positions = place(with_pause(sentence, rng))
    return Take(speaker, document, ({"transcript": sentence.transcript, "language": "en"},), positions)


def _tell(rows: Sequence[Row]) -> str:
    spans = [(start, end) for row in rows for _, start, end in json.loads(row["words"])]
    mean = sum(end - start for start, end in spans) / len(spans)
    return f"{len(spans)} words with times, {mean:.3f} s long in the mean"


ENGLISH = Corpus(
    minutes=170.0,
    folder="english",
    columns=(
        "id", "group", "audio_path", "duration", "transcript", "words", "speaker", "language", "voice", "snr_db",
        "split_hint",
    ),
    plan=plan,
    tell=_tell,
)  # fmt: skip
