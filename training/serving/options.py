"""What a request may ask of a model, and what a model can do: the words that the server and its model processes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from training.data.example import TRANSCRIBE, DecodingQuality, Hypothesis, SpokenWord


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a request is decoded. Windows with the same options are computed together.

    task: ``transcribe`` or ``translate``. domain, beam_width, hot_words: see `training.transcription.transcriber`. prompt:
    text that is said to come before. temperature: the only one that is tried; None: the model's usual ones.
    """

    task: str = TRANSCRIBE
    domain: str | None = None
    beam_width: int | None = None
    hot_words: tuple[str, ...] = ()
    prompt: str = ""
    temperature: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From `as_dict`, which went through JSON."""
        return cls(**{**found, "hot_words": tuple(found["hot_words"])})


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a loaded model can do.

    tasks: of the model. languages: of the speech and of its translation where a request names none; ``und``: unknown,
    ``auto``: detected. language_names: codes that a request may give, with their English names. told_language: whether that
    makes a difference. detects: those that it tells apart. timed: whether words have times. cutting, looks: see
    `training.transcription.planning.Planner`. frames: whether it has a CTC output. padding_sensitive: whether the length of a
    batch changes its texts. scored: whether it takes a temperature and a prompt. domains: those that it has tokens for; domain: the one that holds where a request names none.
    """

    tasks: tuple[str, ...]
    languages: tuple[str, str]
    language_names: Mapping[str, str]
    told_language: bool
    detects: tuple[str, ...]
    sample_rate: int
    timed: bool
    cutting: Mapping[str, float]
    looks: bool
    frames: bool
    padding_sensitive: bool
    scored: bool
    domains: tuple[str, ...]
    domain: str | None
    predicts_domain: bool
    created: int

    @property
    def live(self) -> bool:
        """Whether it takes live speech: a CTC output, whose words have times at once."""
        return self.frames and self.timed

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From `as_dict`, which went through JSON."""
        tuples = ("tasks", "languages", "detects", "domains")
        return cls(**{**found, **{name: tuple(found[name]) for name in tuples}})


def hypothesis_dict(one: Hypothesis) -> dict[str, Any]:
    """For JSON."""
    return asdict(one)


def hypothesis_of(found: Mapping[str, Any]) -> Hypothesis:
    """From `hypothesis_dict`, which went through JSON."""
    quality = found["quality"]
    return Hypothesis(
        **{
            **found,
            "words": tuple(SpokenWord(**word) for word in found["words"]),
            "quality": None if quality is None else DecodingQuality(**quality),
        }
    )
