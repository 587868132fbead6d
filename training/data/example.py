"""The types that data, models and evaluation share: `Example` is the input of a model, `Hypothesis` its output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TRANSCRIBE = "transcribe"
TRANSLATE = "translate"
TASKS: tuple[str, ...] = (TRANSCRIBE, TRANSLATE)
"""Every task that a text may belong to. ``transcribe`` = transcript (ASR), ``translate`` = translation (ST)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRef:
    """The file, or the stretch of a file, with the audio of one utterance.

    ``start`` and ``end`` are seconds into the file; ``end=None`` means the end of the file. ``channel`` is
    counted from 0; None: all channels, mixed to mono (`training.data.audio.load_audio`).
    """

    path: str
    start: float = 0.0
    end: float | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One word of the transcript with its times in seconds from the start of the utterance."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a text with its times in seconds from the start of the utterance; without text: one that only begins in it."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One utterance, as every data source makes it and every architecture consumes it.

    ``texts`` maps a task of `TASKS` to its reference; a task that the source has no text for is absent
    (never the empty string and never ``"nan"``). Utterances of one ``group`` (a video, a talk) must be in the same
    split. ``duration`` is in seconds; None where a command leaves it to the file's header (`load_manifest` with
    ``need_duration=False``). ``word_languages`` has one language code per whitespace-separated word of the
    transcript. ``source`` is ``file:line``, for messages.

    ``segments`` (by task) is filled where the labels are to carry times, ``previous`` (by task) where the prompt is to
    carry the text that was spoken before: `training.data.long_form` draws both for training samples. Sources leave
    them empty.
    """

    id: str
    audio: AudioRef
    duration: float
    texts: Mapping[str, str]
    language: str | None = None
    target_language: str | None = None
    domain: str | None = None
    speaker: str | None = None
    group: str | None = None
    words: tuple[Word, ...] = ()
    word_languages: tuple[str, ...] = ()
    source: str = ""
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    previous: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenWord:
    """One word of a hypothesis: seconds from the start of the utterance, confidence from 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


REPETITION, UNCERTAIN, NO_SPEECH = "repetition", "uncertain", "no_speech"
STEADY = "steady_sound"
"""Values of `DecodingQuality.suspect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingQuality:
    """How a text was decoded, where Whisper's safeguards were asked for (`training.models.safeguards`).

    temperature: the one that the text is of. log_probability: mean natural logarithm of its tokens' probabilities.
    compression_ratio: by which zlib makes it shorter. no_speech: probability that nobody speaks; None: not asked, because
    the text passed. suspect: why no temperature gave a text that passes: `REPETITION`, `UNCERTAIN`; `NO_SPEECH`: the text
    was left out, because nobody speaks; `STEADY`: it passed, but the sound has the steady level of noise or hum; None: it passed. uncut: the text as it was decoded, where that differs.
    """

    temperature: float
    log_probability: float
    compression_ratio: float
    no_speech: float | None = None
    suspect: str | None = None
    uncut: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """The output of a model for one utterance and one task.

    ``id`` is that of the `Example`. ``seconds`` is the wall time of its batch divided by the number of
    hypotheses in it. ``confidence`` (0 to 1) and ``words`` are set where the architecture gives them;
    ``domain`` where the model was asked to predict the domain; ``quality`` where safeguards were asked for.
    """

    id: str
    task: str
    text: str
    seconds: float = 0.0
    confidence: float | None = None
    words: tuple[SpokenWord, ...] = ()
    domain: str | None = None
    quality: DecodingQuality | None = None


def mean_confidence(words: Sequence[SpokenWord]) -> float | None:
    """Geometric mean of the words' confidences; None where there are no words."""
    if not words:
        return None
    return math.exp(sum(math.log(max(word.confidence, 1e-30)) for word in words) / len(words))
