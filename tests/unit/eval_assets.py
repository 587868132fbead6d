"""Examples and hypotheses for the tests of the evaluation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.data.example import TRANSCRIBE, TRANSLATE, AudioRef, Example, Hypothesis

VIETNAMESE = [
    "em",
    "anh",
    "đi",
    "xem",
    "phim",
    "hay",
    "lắm",
    "của",
    "kênh",
    "với",
    "mình",
    "cho",
    "nhé",
    "hôm",
    "nay",
    "trời",
    "đẹp",
    "quá",
    "không",
    "biết",
    "nữa",
]
TERMS = {"TikTok": "mạng xã hội", "deadline": "hạn chót", "meeting": "cuộc họp", "laptop": "máy tính"}


def example(
    name: str,
    transcript: str | None,
    translation: str | None = None,
    *,
    language: str = "vi",
    target: str | None = None,
    speaker: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    duration: float = 2.0,
    path: str = "clip.wav",
    domain: str | None = None,
) -> Example:
    texts = {TRANSCRIBE: transcript, TRANSLATE: translation}
    return Example(
        id=name,
        audio=AudioRef(path=path),
        duration=duration,
        texts={task: text for task, text in texts.items() if text is not None},
        language=language,
        target_language=target,
        speaker=speaker,
        group=group,
        domain=domain,
        word_languages=tuple(tags),
        source=f"test.tsv:{name}",
    )


def said(name: str, text: str, task: str = TRANSCRIBE, seconds: float = 0.0) -> Hypothesis:
    return Hypothesis(id=name, task=task, text=text, seconds=seconds)


def corpus(
    rows: int = 60,
    *,
    drop: float = 0.1,
    seed: int = 0,
    path: str = "clip.wav",
    voices: int = 5,
    videos: int = 3,
) -> tuple[list[Example], list[Hypothesis]]:
    """Code-switched rows, every fourth with one English word, and hypotheses that drop words at random."""
    writing, hearing = random.Random(7), random.Random(seed)
    examples, hypotheses = [], []
    for number in range(rows):
        words = writing.choices(VIETNAMESE, k=9)
        translated, tags = list(words), ["vi"] * 9
        if number % 4 == 0:
            term, place = writing.choice(list(TERMS)), writing.randrange(9)
            words[place], translated[place], tags[place] = term, TERMS[term], "en"
        name = f"u{number}"
        found = example(
            name,
            " ".join(words),
            " ".join(translated),
            speaker=f"s{number % voices}",
            group=f"v{number % videos}",
            tags=tags,
            path=path,
        )
        examples.append(found)
        for task, text in found.texts.items():
            heard = " ".join(word for word in text.split() if hearing.random() > drop)
            hypotheses.append(said(name, heard, task, seconds=0.1))
    return examples, hypotheses
