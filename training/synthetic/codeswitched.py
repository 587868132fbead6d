"""The code-switched Vietnamese–English demo corpus: its voices and its manifest.

Each video has one voice, one recording level and one background noise. Columns:

- ``id, video_id, audio_path, duration, transcript, translation``: paths relative to the manifest, seconds;
  the texts carry some markup (``[cười]``, ``**…**``) for the cleaner to remove;
- ``speaker, language, target_language``: both languages are ``vi``, the language that embeds the other;
- ``word_languages``: gold tags, ``vi`` or ``en``, one for each whitespace-separated word of the *cleaned*
  transcript, that is without bracketed notes and asterisks. Proper names (TikTok) count as ``en`` and stay
  as they are in the translation;
- ``kind`` (see ``demo_text.TENS``), ``voice``, ``snr_db`` (empty: no noise);
- ``split_hint``: ``unheard`` on the rows of a voice that must stay out of train, dev and test.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.synthetic.espeak import ssml
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
from training.synthetic.text import Sentence, corpus

VIDEOS_PER_SPEAKER = 5
_SHORTEST_MEAN = 1.55

SPEAKERS = (
    Speaker("lan", "vi+f2", 235, 50),
    Speaker("minh", "vi", 240, 45),
    Speaker("nam", "vi+m3", 230, 60),
    Speaker("hoa", "vi-vn-x-south+f4", 240, 48),
    Speaker("tuan", "vi-vn-x-south", 235, 55),
    Speaker("thu", "vi-vn-x-central+f1", 230, 52),
)
UNHEARD_SPEAKER = Speaker("khoa", "vi+m7", 235, 52)


def plan(minutes: float, seed: int) -> list[Video]:
    """The videos of the corpus: the speakers take turns."""
    training_videos = len(SPEAKERS) * VIDEOS_PER_SPEAKER
    size = Size.of(minutes, training_videos, block=10, shortest_mean=_SHORTEST_MEAN)
    return sessions(corpus, _session, size, seed)


def _session(number: int, share: Sequence[Sentence], size: Size, rng: random.Random) -> Video:
    speaker, snr_db = turn_of(number, SPEAKERS)
    speaker = in_session(speaker if size.in_training(number) else UNHEARD_SPEAKER, rng)
    takes = [Take(speaker, spoken(sentence), (_cells(sentence),)) for sentence in share]
    return record_session(f"demo{number + 1:02d}", takes, rng, size, number, snr_db=snr_db)


def spoken(sentence: Sentence) -> str:
    """The input of the synthesiser (SSML): the voice is Vietnamese and switches for runs in another language."""
    return ssml((part.text, None if part.language == "vi" else part.language) for part in sentence.parts)


def _cells(sentence: Sentence) -> Row:
    return {
        "transcript": sentence.marked(sentence.transcript),
        "translation": sentence.marked(sentence.translation),
        "language": "vi",
        "target_language": "vi",
        "word_languages": " ".join(sentence.word_languages),
        "kind": sentence.kind,
    }


def _tell(rows: Sequence[Row]) -> str:
    changed = sum(row["transcript"] != row["translation"] for row in rows)
    return f"{changed} rows changed by the translation"


CODESWITCHED = Corpus(
    minutes=156.0,
    folder="export",
    columns=(
        "id", "video_id", "audio_path", "duration", "transcript", "translation", "speaker", "language",
        "target_language", "word_languages", "kind", "voice", "snr_db", "split_hint",
    ),
    plan=plan,
    tell=_tell,
)  # fmt: skip
